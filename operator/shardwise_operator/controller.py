"""One reconcile of one job: observe, decide, apply, and at most one write of its status.

Called by the work queue with a job's key, never twice at once for the same key. All that it
remembers is a convenience: after a restart everything is had again from the API.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from shardwise.api.conditions import FAILED, NAME_TAKEN, SUCCEEDED
from shardwise.coordinator.report import TaskReport
from shardwise_operator import names
from shardwise_operator.actions import CreatePod, CreateService, Decision, OpenTask
from shardwise_operator.apply import Applied, Applier
from shardwise_operator.backoff import pause
from shardwise_operator.clock import FirstSeen
from shardwise_operator.decide import decide
from shardwise_operator.decide.conditions import condition_true_since
from shardwise_operator.decide.trouble import reconcile_failed
from shardwise_operator.jobs import JobStore, Key
from shardwise_operator.metrics import Metrics
from shardwise_operator.observe import (
    Asked,
    ConfigMapView,
    CreationError,
    JobView,
    Observed,
    foreign_pods,
    job_view,
    pod_views,
)
from shardwise_operator.port import ApiError, Cluster
from shardwise_operator.sources import source
from shardwise_operator.words import Words
from shardwise_operator.writes import LastWrite, TokenBucket, merge_patch, postponed

log = logging.getLogger(__name__)


FAILED_PAUSE = timedelta(seconds=2)
FAILED_LONGEST = timedelta(minutes=5)
"""Between two tries of a job that no decision can be made about."""
_CREATES = (CreatePod, CreateService, OpenTask)
REFUSED = (400, 413, 422)
"""Answers to a status that will never be another for the same status."""


class Pods(Protocol):
    """The informer, as far as the controller needs it."""

    def pods(self, namespace: str, job: str) -> Sequence[Mapping[str, Any]]: ...


class Reports(Protocol):
    """The coordinator, as far as the controller needs it."""

    def report(self, uid: str) -> TaskReport | None: ...

    def asked(self, uid: str) -> Asked | None: ...

    def forget(self, uid: str, reason: str, message: str) -> None: ...


@dataclass(slots=True)
class Memo:
    """What is remembered of a job between reconciles."""

    uid: str
    generation: int = -1
    tried: int = -1
    """The generation that the API server was seen to take pods of."""
    service: bool = False
    service_failed: bool = False
    attempts: int = 0
    """Failures to create in a row."""
    failures: int = 0
    """Reconciles in a row that no decision came of."""
    refused: str = ""
    """Why the job's status could not be written."""
    end: Mapping[str, Any] | None = None
    """The job's end, where not even that could be written."""
    errors: tuple[CreationError, ...] = ()
    seen: FirstSeen = field(default_factory=FirstSeen)
    words: Words = field(default_factory=Words)
    end_seen: datetime | None = None
    idle_since: datetime | None = None
    short_since: datetime | None = None
    last_write: LastWrite = field(default_factory=LastWrite)
    why: tuple[str, ...] = ()


def utc_now() -> datetime:
    return datetime.now(UTC)


class Controller:
    """Reconciles jobs by key."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        jobs: JobStore,
        pods: Pods,
        reports: Reports,
        applier: Applier,
        bucket: TokenBucket,
        metrics: Metrics,
        monotonic: Callable[[], float],
        settled: Callable[[], bool],
        now: Callable[[], datetime] = utc_now,
        server_minor: Callable[[], int] = lambda: 0,
    ) -> None:
        self._cluster = cluster
        self._jobs = jobs
        self._pods = pods
        self._reports = reports
        self._applier = applier
        self._bucket = bucket
        self._metrics = metrics
        self._monotonic = monotonic
        self._settled = settled
        self._now = now
        self._server_minor = server_minor
        self._memos: dict[Key, Memo] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Brings the job one step on; gives the seconds until it wants to be looked at again.

        Raises:
            ApiError: the API server could not be asked or said no; the queue tries again.
        """
        try:
            with self._metrics.reconcile_time():
                after = await self._reconcile(key)
        except ApiError:
            raise
        except Exception as error:  # noqa: BLE001
            # The boundary of one job: whatever is wrong with it or with the code that reads it
            # is told of it, and is none of the others' affair.
            return await self._failed(key, error)
        if key in self._memos:
            self._memos[key].failures = 0
        return after

    async def _failed(self, key: Key, error: Exception) -> float | None:
        """Tells of a job that no decision can be made about; gives the seconds to the next try."""
        raw = self._jobs.get(key)
        if raw is None:
            return None
        job = job_view(raw)
        memo = self._memo(key, job)
        memo.failures += 1
        wait = pause(job.uid, memo.failures, FAILED_PAUSE, FAILED_LONGEST).total_seconds()
        where = "/".join(key)
        log.error("%s cannot be reconciled, next try in %.0f s", where, wait, exc_info=error)
        decision = reconcile_failed(job, error, self._now())
        if decision.status is not None:
            try:
                await self._write(key, job, decision, memo)
            except ApiError as refused:
                log.error("%s: nor can that be told: %s", where, refused)
        return wait

    async def _reconcile(self, key: Key) -> float | None:
        raw = self._jobs.get(key)
        if raw is None:
            self._gone(key)
            return None
        observed, decision = await self._decide(key, raw)
        if any(isinstance(action, CreatePod) for action in decision.actions):
            # What is cached may be of a job that is deleted or changed: creating asks first.
            raw = await self._live(key)
            if raw is None:
                self._gone(key)
                return None
            observed, decision = await self._decide(key, raw)
        memo = self._memos[key]
        attempt = memo.attempts + 1
        applied = await self._apply(observed, decision, memo, attempt)
        self._note_created(memo, decision, applied.errors)
        if applied.errors:
            decision = decide(
                replace(observed, creation_errors=memo.errors, service_failed=memo.service_failed)
            )
        self._explain(key, memo, decision)
        postponed_seconds = await self._write(key, observed.job, decision, memo)
        if applied.failure is not None:
            raise applied.failure
        return _earliest(
            decision.requeue_after.total_seconds() if decision.requeue_after else None,
            postponed_seconds,
        )

    async def _apply(
        self, observed: Observed, decision: Decision, memo: Memo, attempt: int
    ) -> Applied:
        """Carries it out; of a new spec, once the API server would take a pod."""
        job, new = observed.job, memo.tried != observed.job.generation
        first = next((a for a in decision.actions if isinstance(a, CreatePod)), None)
        if first is not None and new:
            refused = await self._applier.dry_run(job, first, observed.now, attempt)
            if refused is not None:
                others = [a for a in decision.actions if not isinstance(a, _CREATES)]
                applied = await self._applier.apply(job, others, observed.now, attempt)
                return Applied((refused, *applied.errors), applied.failure)
            memo.tried = job.generation
        return await self._applier.apply(job, decision.actions, observed.now, attempt)

    def _note_created(
        self, memo: Memo, decision: Decision, errors: tuple[CreationError, ...]
    ) -> None:
        made = any(isinstance(action, CreateService) for action in decision.actions)
        if made:
            memo.service_failed = any(
                not error.blocks and error.taken is None and error.reason != NAME_TAKEN
                for error in errors
            )
            # Where the NetworkPolicy is missing, both are made again with the pods.
            memo.service |= not any(error.blocks and error.taken is None for error in errors)
        if made or any(isinstance(action, CreatePod) for action in decision.actions):
            failed = any(error.taken is None for error in errors)
            memo.attempts = memo.attempts + 1 if failed else 0
        if errors:
            # Of a name that is taken is known until it is tried again: another one is taken.
            told = {error.what for error in errors}
            kept = (error for error in memo.errors if error.what not in told)
            memo.errors = (*(e for e in kept if e.taken is not None or not e.blocks), *errors)

    def _memo(self, key: Key, job: JobView) -> Memo:
        memo = self._memos.get(key)
        if memo is None or memo.uid != job.uid:
            if memo is not None:
                self._gone(key)
            memo = self._memos[key] = Memo(uid=job.uid)
        if memo.generation != job.generation:
            # Another spec: what was refused may be mended.
            memo.generation, memo.attempts, memo.failures = job.generation, 0, 0
            memo.errors = tuple(error for error in memo.errors if error.taken is not None)
            memo.refused, memo.end = "", None
        return memo

    async def _decide(self, key: Key, raw: Mapping[str, Any]) -> tuple[Observed, Decision]:
        job = job_view(raw)
        memo = self._memo(key, job)
        if memo.end is not None:  # Its end could not be written; it is one all the same.
            job = replace(job, status=memo.end)
        observed = await self._observe(job, memo)
        if observed.report is not None:
            self._metrics.reported(raw, observed.report)
        return observed, decide(observed)

    async def _observe(self, job: JobView, memo: Memo) -> Observed:
        now = self._now()
        pods = self._pods.pods(job.namespace, job.name)
        report, asked = self._reports.report(job.uid), self._reports.asked(job.uid)
        if report is None or report.state not in ("finished", "failed"):
            memo.end_seen = None
        elif memo.end_seen is None:
            memo.end_seen = now
        self._note_pool(memo, report, now)
        memo.errors = tuple(error for error in memo.errors if error.retry_at > now)
        configmap = await self._configmap(job)
        trainer = (job.manifest.get("spec") or {}).get("trainer")
        views = memo.seen.aged(pod_views(pods, job.uid, job.namespace), job.status, now)
        return Observed(
            job=job,
            pods=views,
            pod_words=await memo.words.of(self._cluster, job.namespace, views, now),
            foreign=foreign_pods(pods, job),
            now=now,
            service_exists=memo.service,
            service_failed=memo.service_failed,
            status_refused=memo.refused,
            server_minor=self._server_minor(),
            configmap=configmap,
            report=report,
            asked=asked,
            end_seen=memo.end_seen,
            idle_since=memo.idle_since,
            short_since=memo.short_since,
            source=(
                source(trainer, configmap.files if configmap is not None else None)
                if isinstance(trainer, Mapping)
                else None
            ),
            settled=self._settled() and (asked is None or asked.settled),
            creation_errors=memo.errors,
        )

    def _note_pool(self, memo: Memo, report: TaskReport | None, now: datetime) -> None:
        """Since when a pool has lacked what it lacks for moments between two tasks as well."""
        pool = report if report is not None and report.tasks is not None else None
        idle = pool is not None and not pool.members and pool.state != "finished"
        short = pool is not None and len(pool.connected) < pool.workers
        memo.idle_since = (memo.idle_since or now) if idle else None
        memo.short_since = (memo.short_since or now) if short else None

    async def _configmap(self, job: JobView) -> ConfigMapView | None:
        """Looked up until the pods are made with it; its hash is in the status from then on."""
        trainer = (job.manifest.get("spec") or {}).get("trainer") or {}
        source = trainer.get("codeFrom") if isinstance(trainer, Mapping) else None
        name = source.get("configMap") if isinstance(source, Mapping) else None
        ended = any(
            condition_true_since(job.status.get("conditions"), type_) is not None
            for type_ in (SUCCEEDED, FAILED)
        )
        if not isinstance(name, str) or not name or ended or job.status.get("code"):
            return None
        try:
            found = await self._cluster.get("configmaps", job.namespace, name)
        except ApiError as error:
            problem = "" if error.status == 404 else str(error)
            return ConfigMapView(name=name, sha256=None, problem=problem)
        content = {part: found.get(part) or {} for part in ("data", "binaryData")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return ConfigMapView(
            name=name,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            files=data if isinstance(data := found.get("data"), Mapping) else {},
        )

    async def _live(self, key: Key) -> Mapping[str, Any] | None:
        try:
            raw = await self._cluster.get(names.PLURAL, *key)
        except ApiError as error:
            if error.status != 404:
                raise
            self._jobs.remove(key)
            return None
        self._jobs.put(raw)
        return raw

    def _gone(self, key: Key) -> None:
        memo = self._memos.pop(key, None)
        if memo is not None:
            self._reports.forget(memo.uid, "JobDeleted", "the job was deleted")

    async def _write(self, key: Key, job: JobView, decision: Decision, memo: Memo) -> float | None:
        if decision.status is None:
            return None
        told = (self._jobs.get(key) or {}).get("status")
        if memo.end is not None:
            told = memo.end
        # Against what is there, not what is read of it: somebody may have edited it.
        patch = merge_patch(told if isinstance(told, Mapping) else {}, decision.status)
        if not patch:
            self._metrics.status_write("unchanged")
            return None
        now = self._monotonic()
        wait = postponed(patch, job.status, memo.last_write, self._bucket, now)
        if wait > 0:
            self._metrics.status_write("coalesced")
            return wait
        try:
            written = await self._cluster.patch(
                f"{names.PLURAL}/status", job.namespace, job.name, {"status": patch}
            )
        except ApiError as error:
            if error.status in REFUSED:
                return self._refused(key, job, decision, memo, error)
            if error.status != 404:
                raise
            self._jobs.remove(key)
            self._gone(key)
            return None
        self._metrics.status_write("sent")
        memo.last_write.at, memo.last_write.turn = now, None
        if (written.get("metadata") or {}).get("uid") == job.uid:
            self._jobs.put(written)
        self._applier.record_events(job, decision.actions)
        return None

    def _refused(
        self, key: Key, job: JobView, decision: Decision, memo: Memo, error: ApiError
    ) -> float | None:
        """The API server takes no such status: the job fails with a shorter one that says so; and
        where it takes none at all, it has failed as far as the operator is concerned."""
        self._metrics.status_write("refused")
        log.error("the status of %s is refused: %s", "/".join(key), error)
        if not memo.refused:
            memo.refused = str(error)
            return 0.0
        memo.end = decision.status
        self._applier.record_events(job, decision.actions)
        return 0.0

    def _explain(self, key: Key, memo: Memo, decision: Decision) -> None:
        if decision.why != memo.why:
            memo.why = decision.why
            log.info(
                "%s/%s: %s",
                *key,
                "; ".join(decision.why) or "nothing to do",
                extra={"job": "/".join(key), "actions": len(decision.actions)},
            )


def _earliest(*seconds: float | None) -> float | None:
    return min((value for value in seconds if value is not None), default=None)
