"""Carries a decision's actions out: one call each, pods in parallel, "already there" is done.

The last step of a reconcile. Decides nothing: what cannot be created comes back as errors, which
the next decision sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

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
from shardwise_operator.observe import CreationError, JobView
from shardwise_operator.port import ApiError, Cluster
from shardwise_operator.render import (
    RenderFacts,
    network_policy_manifest,
    pod_manifest,
    service_manifest,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY = timedelta(seconds=10)
NAME_TAKEN_RETRY = timedelta(seconds=2)
"""For what goes by itself."""
FOREIGN_RETRY = timedelta(seconds=60)
"""For what only its owner can move out of the way."""


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
        self, job: JobView, actions: Sequence[Action], now: datetime
    ) -> tuple[CreationError, ...]:
        """Does it all; the Service and the task come before the pods that need them.

        Raises:
            ApiError: a call failed for a reason that time may cure; the whole is tried again.
        """
        creates: list[CreatePod] = []
        deletes: list[DeletePod] = []
        errors: list[CreationError] = []
        for action in actions:
            match action:
                case CreateService():
                    made = (
                        await self._create_service(job, now),
                        await self._create_network_policy(job, now),
                    )
                    errors += [error for error in made if error is not None]
                case OpenTask() | ResizeTask() | DrainTask() | LostWorker() | CloseTask():
                    self._tell(job, action)
                case DeletePod():
                    deletes.append(action)
                case DeleteJob():
                    await self._delete(names.PLURAL, job.namespace, job.name, job.uid)
                case EmitEvent():
                    pass  # Events tell of what has been written: see record_events.
                case CreatePod():
                    creates.append(action)
        await self._delete_pods(job, deletes)
        if not any(error.blocks for error in errors):
            # Else: no worker runs open to all where it is to be closed.
            errors += await self._create_pods(job, creates, now)
        return tuple(errors)

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

    async def _create_service(self, job: JobView, now: datetime) -> CreationError | None:
        try:
            await self._cluster.create("services", job.namespace, service_manifest(job))
        except ApiError as error:
            # The workers reach each other by address; host names are for people, so neither a
            # name that is taken nor one that a Service may not have keeps the job from running.
            if error.status not in (403, 409, 422):
                raise
            log.info("service %s/%s was not created: %s", job.namespace, job.name, error)
            if error.reason == "AlreadyExists":
                return await self._taken(job, "service", job.name, now, blocks=False)
        return None

    async def _create_network_policy(self, job: JobView, now: datetime) -> CreationError | None:
        metrics_from = self._facts().metrics_from
        if metrics_from is None:
            return None
        manifest = network_policy_manifest(job, metrics_from)
        name = manifest["metadata"]["name"]
        try:
            await self._cluster.create("networkpolicies", job.namespace, manifest)
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return await self._taken(job, "networkpolicy", name, now)
            if error.status in (400, 403, 404, 422):
                return creation_error(f"networkpolicy {name}", error, now)
            raise
        return None

    async def _delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        try:
            await self._cluster.delete(kind, namespace, name, uid)
        except ApiError as error:
            if error.status not in (404, 409):  # Gone, or another object has the name by now.
                raise

    async def _delete_pods(self, job: JobView, deletes: Sequence[DeletePod]) -> None:
        slots = asyncio.Semaphore(self._parallel)

        async def one(action: DeletePod) -> None:
            async with slots:
                await self._delete("pods", job.namespace, action.name, action.uid)

        await _all(one(action) for action in deletes)

    async def _create_pods(
        self, job: JobView, creates: Sequence[CreatePod], now: datetime
    ) -> tuple[CreationError, ...]:
        if not creates:
            return ()
        slots = asyncio.Semaphore(self._parallel)
        facts = self._facts()

        async def one(action: CreatePod) -> CreationError | None:
            async with slots:
                return await self._create_pod(job, action, facts, now)

        results = await _all(one(action) for action in creates)
        return tuple(error for error in results if error is not None)

    async def _create_pod(
        self, job: JobView, action: CreatePod, facts: RenderFacts, now: datetime
    ) -> CreationError | None:
        manifest = pod_manifest(job, action.index, action.trainer, facts)
        name = names.pod_name(job.name, action.index)
        try:
            await self._cluster.create("pods", job.namespace, manifest)
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return await self._taken(job, "pod", name, now)
            if error.status in (400, 403, 422):
                return creation_error(f"pod {name}", error, now)
            raise
        return None

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


def creation_error(what: str, error: ApiError, now: datetime) -> CreationError:
    reason = error.reason
    if error.status in (400, 422):  # The API server cannot make a pod of this.
        reason = c.CONTAINER_CONFIG_ERROR
    if error.status == 403:
        reason = c.QUOTA_EXCEEDED if "exceeded quota" in error.message else c.FORBIDDEN
    return CreationError(
        what=what,
        status=error.status,
        reason=reason,
        message=error.message,
        retry_at=now + RETRY,
    )


async def _all(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Every call is carried through, and then the first failure is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    good: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        good.append(result)
    return good
