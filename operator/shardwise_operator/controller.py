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
from datetime import UTC, datetime
from typing import Any, Protocol

from shardwise.api.conditions import FAILED, SUCCEEDED
from shardwise.coordinator.report import TaskReport
from shardwise_operator import names
from shardwise_operator.actions import CreatePod, CreateService, Decision
from shardwise_operator.apply import Applier
from shardwise_operator.decide import decide
from shardwise_operator.decide.conditions import condition_true_since
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
from shardwise_operator.writes import LastWrite, TokenBucket, merge_patch, postponed

log = logging.getLogger(__name__)


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
    service: bool = False
    errors: tuple[CreationError, ...] = ()
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
        self._memos: dict[Key, Memo] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Brings the job one step on; gives the seconds until it wants to be looked at again.

        Raises:
            ApiError: the API server could not be asked or said no; the queue tries again.
        """
        with self._metrics.reconcile_time():
            return await self._reconcile(key)

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
        errors = await self._applier.apply(observed.job, decision.actions, observed.now)
        if errors:  # The NetworkPolicy's perhaps: it is made again with the pods.
            # Of a name that is taken is known until it is tried again: another one is taken.
            taken = (error for error in memo.errors if error.taken is not None)
            told = {error.what for error in errors}
            memo.errors = (*(error for error in taken if error.what not in told), *errors)
            decision = decide(replace(observed, creation_errors=memo.errors))
        else:
            memo.service |= any(isinstance(action, CreateService) for action in decision.actions)
        self._explain(key, memo, decision)
        postponed_seconds = await self._write(key, observed.job, decision, memo)
        return _earliest(
            decision.requeue_after.total_seconds() if decision.requeue_after else None,
            postponed_seconds,
        )

    async def _decide(self, key: Key, raw: Mapping[str, Any]) -> tuple[Observed, Decision]:
        job = job_view(raw)
        memo = self._memos.get(key)
        if memo is None or memo.uid != job.uid:
            if memo is not None:
                self._gone(key)
            memo = self._memos[key] = Memo(uid=job.uid)
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
        return Observed(
            job=job,
            pods=pod_views(pods, job.uid, job.namespace),
            foreign=foreign_pods(pods, job),
            now=now,
            service_exists=memo.service,
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
            if error.status != 404:
                raise
            return ConfigMapView(name=name, sha256=None)
        content = {part: found.get(part) or {} for part in ("data", "binaryData")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return ConfigMapView(
            name=name,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            files=found.get("data") or {},
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
        patch = merge_patch(job.status, decision.status)
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
