"""Carries a decision's actions out: one call each, pods in parallel, "already there" is done.

The last step of a reconcile. Decides nothing: what cannot be created comes back as errors, which
the next decision sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from shardwise.api import conditions as c
from shardwise_operator import identity, names
from shardwise_operator.actions import (
    Action,
    CloseTask,
    CreatePod,
    CreateService,
    DeleteJob,
    DeletePod,
    DrainTask,
    EmitEvent,
    LostWorker,
    OpenTask,
    ResizeTask,
)
from shardwise_operator.backoff import pause
from shardwise_operator.observe import CreationError, JobView
from shardwise_operator.port import ApiError, Cluster
from shardwise_operator.render import (
    RenderFacts,
    network_policy_manifest,
    pod_manifest,
    service_manifest,
)
from shardwise_operator.render.origin import in_the_job

log = logging.getLogger(__name__)
RETRY = timedelta(seconds=8)
LONGEST_RETRY = timedelta(minutes=5)
MOST_RETRY_AFTER = timedelta(minutes=10)
"""Of what a server asks for in Retry-After."""
NAME_TAKEN_RETRY = timedelta(seconds=2)
"""For what goes by itself."""
FOREIGN_RETRY = timedelta(seconds=60)
"""For what only its owner can move out of the way."""


class Applied(NamedTuple):
    """What came of the actions."""

    errors: tuple[CreationError, ...]
    """What could not be created, in the order of trying."""
    failure: ApiError | None
    """Another call that failed: to be raised once the status is written."""


class Tasks(Protocol):
    """The coordinator's side of a job."""

    def open(self, job: JobView, action: OpenTask) -> None: ...

    def resize(self, job: JobView, action: ResizeTask) -> None: ...

    def drain(self, job: JobView, action: DrainTask) -> None: ...

    def lost(self, job: JobView, action: LostWorker) -> None: ...

    def close(self, job: JobView, reason: str, message: str) -> None: ...


class Recorder(Protocol):
    """Where Events go."""

    def record(self, job: JobView, event: EmitEvent) -> None: ...


class Applier:
    """Applies actions for any job."""

    def __init__(
        self,
        cluster: Cluster,
        tasks: Tasks,
        recorder: Recorder,
        facts: Callable[[], RenderFacts],
        parallel: int,
    ) -> None:
        self._cluster = cluster
        self._tasks = tasks
        self._recorder = recorder
        self._facts = facts
        self._parallel = parallel

    async def apply(
        self, job: JobView, actions: Sequence[Action], now: datetime, attempt: int = 1
    ) -> Applied:
        """Does it all, and whatever fails keeps nothing else from being done; the Service and the
        task come before the pods that need them.

        Args:
            attempt: of creating, from 1: how often in a row it failed before, and one.
        """
        creates: list[CreatePod] = []
        deletes: list[tuple[str, str, str]] = []
        errors: list[CreationError] = []
        for action in actions:
            match action:
                case CreateService():
                    errors += await self._create_around(job, now, attempt)
                case OpenTask() | ResizeTask() | DrainTask() | LostWorker() | CloseTask():
                    self._tell(job, action)
                case DeletePod():
                    deletes.append(("pods", action.name, action.uid))
                case DeleteJob():
                    deletes.append((names.PLURAL, job.name, job.uid))
                case EmitEvent():
                    pass  # Events tell of what has been written: see record_events.
                case CreatePod():
                    creates.append(action)
        failure = await self._delete_all(job, deletes)
        if not any(error.blocks for error in errors):
            # Else: no worker runs open to all where it is to be closed.
            errors += await self._create_pods(job, creates, now, attempt)
        return Applied(tuple(errors), failure)

    def _tell(
        self, job: JobView, action: OpenTask | ResizeTask | DrainTask | LostWorker | CloseTask
    ) -> None:
        match action:
            case OpenTask():
                self._tasks.open(job, action)
            case ResizeTask():
                self._tasks.resize(job, action)
            case DrainTask():
                self._tasks.drain(job, action)
            case LostWorker():
                self._tasks.lost(job, action)
            case CloseTask():
                self._tasks.close(job, action.reason, action.message)

    def record_events(self, job: JobView, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, EmitEvent):
                self._recorder.record(job, action)

    async def dry_run(
        self, job: JobView, action: CreatePod, now: datetime, attempt: int
    ) -> CreationError | None:
        """What the API server has against the pod itself; it is not kept. What else it may answer
        (the quota is full, an admission webhook takes no dry runs) is left to the making."""
        manifest = pod_manifest(job, action.index, action.trainer, self._facts())
        try:
            await self._cluster.create("pods", job.namespace, manifest, dry_run=True)
        except ApiError as error:
            if error.status not in (400, 422) or "dry run" in error.message:
                return None
            what = f"pod {manifest['metadata']['name']}"
            found = creation_error(what, error, now, job.uid, attempt)
            return replace(found, message=in_the_job(found.message, manifest, job.manifest))
        return None

    async def _create_around(
        self, job: JobView, now: datetime, attempt: int
    ) -> list[CreationError]:
        """What stands beside the pods. The workers reach each other by address, and host names are
        for people: so without its Service a job runs all the same."""
        made = [
            await self._create(job, "service", service_manifest(job), now, attempt, blocks=False)
        ]
        metrics_from = self._facts().metrics_from
        if metrics_from is not None:
            manifest = network_policy_manifest(job, metrics_from)
            made.append(await self._create(job, "networkpolicy", manifest, now, attempt))
        return [error for error in made if error is not None]

    async def _create(
        self,
        job: JobView,
        kind: str,
        manifest: Mapping[str, Any],
        now: datetime,
        attempt: int,
        *,
        blocks: bool = True,
    ) -> CreationError | None:
        """Creates it; any answer but success is told of."""
        name = str(manifest["metadata"]["name"])
        try:
            try:
                await self._cluster.create(_PLURALS[kind], job.namespace, manifest)
            except ApiError as error:
                if error.status == 409 and error.reason == "AlreadyExists":
                    return await self._taken(job, kind, name, now, blocks=blocks)
                raise
        except ApiError as error:
            log.info("%s %s/%s was not created: %s", kind, job.namespace, name, error)
            found = creation_error(f"{kind} {name}", error, now, job.uid, attempt)
            found = replace(found, message=in_the_job(found.message, manifest, job.manifest))
            return found if blocks else replace(found, blocks=False)
        return None

    async def _delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        try:
            await self._cluster.delete(kind, namespace, name, uid)
        except ApiError as error:
            if error.status not in (404, 409):  # Gone, or another object has the name by now.
                raise

    async def _delete_all(
        self, job: JobView, deletes: Sequence[tuple[str, str, str]]
    ) -> ApiError | None:
        slots = asyncio.Semaphore(self._parallel)

        async def one(kind: str, name: str, uid: str) -> ApiError | None:
            async with slots:
                try:
                    await self._delete(kind, job.namespace, name, uid)
                except ApiError as error:
                    return error
            return None

        results = await asyncio.gather(*(one(*delete) for delete in deletes))
        return next((error for error in results if error is not None), None)

    async def _create_pods(
        self, job: JobView, creates: Sequence[CreatePod], now: datetime, attempt: int
    ) -> list[CreationError]:
        """One, then two, then four, ...: what is refused for one is mostly refused for all."""
        if not creates:
            return []
        facts, errors = self._facts(), list[CreationError]()
        begin, size = 0, 1
        while begin < len(creates) and all(error.taken is not None for error in errors):
            batch = creates[begin : begin + size]
            manifests = [pod_manifest(job, each.index, each.trainer, facts) for each in batch]
            results = await asyncio.gather(
                *(self._create(job, "pod", manifest, now, attempt) for manifest in manifests)
            )
            errors += [error for error in results if error is not None]
            begin, size = begin + size, min(size * 2, self._parallel)
        return errors

    async def _taken(
        self, job: JobView, kind: str, name: str, now: datetime, *, blocks: bool = True
    ) -> CreationError | None:
        """Ours already is done; what anybody else has under this name stays, and is told of."""
        try:
            found = await self._cluster.get(_PLURALS[kind], job.namespace, name)
        except ApiError as error:
            if error.status != 404:
                raise
            found = {}
        index = identity.name_index(name, job.name) if kind == "pod" else None
        if identity.is_of(found, job.namespace, job.uid) and (
            index is None or identity.worker_index(found) == index
        ):
            return None
        leaves = not found or identity.leaves_by_itself(found, job.name)
        return CreationError(
            what=f"{kind} {name}",
            status=409,
            reason=c.NAME_TAKEN,
            message=identity.in_the_way(kind, name, leaves=leaves),
            retry_at=now + (NAME_TAKEN_RETRY if leaves else FOREIGN_RETRY),
            taken=index,
            blocks=blocks and index is None,
        )


_PLURALS = {"pod": "pods", "service": "services", "networkpolicy": "networkpolicies"}


def creation_error(
    what: str, error: ApiError, now: datetime, uid: str, attempt: int
) -> CreationError:
    reason = error.reason or "CreationFailed"
    if error.status in (400, 422):  # The API server cannot make it of this.
        reason = c.CONTAINER_CONFIG_ERROR
    if error.status == 403:
        reason = c.QUOTA_EXCEEDED if "exceeded quota" in error.message else c.FORBIDDEN
    asked = min(timedelta(seconds=error.retry_after), MOST_RETRY_AFTER)
    return CreationError(
        what=what,
        status=error.status,
        reason=reason,
        message=error.message or f"the API server answered {error.status}",
        retry_at=now + max(asked, pause(uid, attempt, RETRY, LONGEST_RETRY)),
    )
