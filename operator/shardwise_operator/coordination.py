"""The coordinator inside the operator: who its workers are, and which job a task is.

A task's key is its job's uid, so a job that is applied again under its old name is another task.
A worker proves itself with its pod's token: the API server says which pod the token is bound to,
and that pod, by uid, must be a living one that the operator made for the job (see `identity`), in
the job's own namespace. What a worker says of itself names neither its job nor its rank.
"""

from __future__ import annotations

import asyncio.sslproto
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ssl import SSLContext
from typing import Any, Protocol

from shardwise.api.conditions import REFUSED_WORKER
from shardwise.api.environment import TOKEN_AUDIENCE
from shardwise.api.types import split_trainer
from shardwise.coordinator import (
    Assignment,
    Coordinator,
    Credential,
    Identity,
    PoolAssignment,
    Refused,
    TaskReport,
)
from shardwise.coordinator.protocol import Protection
from shardwise_operator import identity, names
from shardwise_operator.actions import DrainTask, LostWorker, OpenTask, ResizeTask
from shardwise_operator.jobs import Key
from shardwise_operator.observe import Asked, JobView
from shardwise_operator.port import ApiError, Cluster
from shardwise_operator.reviews import Reviews

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
TLS_READ_BYTES = 8192
SETTLE_MARGIN = 1.0
"""Seconds that a group takes to form once the coordinator waits for nobody any more."""


class LivingPods(Protocol):
    """The informer, as far as it tells of single pods."""

    def pod(self, namespace: str, name: str) -> Mapping[str, Any] | None: ...


class Coordination:
    """Jobs on one side, the coordinator's tasks on the other."""

    def __init__(
        self,
        cluster: Cluster,
        pods: LivingPods,
        on_change: Callable[[Key], None],
        *,
        grace_seconds: float,
        report_seconds: float,
        exchange: Protection = "authenticated",
        monotonic: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._pods = pods
        self._on_change = on_change
        self._report_seconds = report_seconds
        self._keys: dict[str, Key] = {}
        self._asked: dict[str, Asked] = {}
        self._settles: dict[str, float] = {}
        self._adoption_seconds = grace_seconds
        self._monotonic = monotonic
        self._reviews = Reviews(self._review, monotonic)
        self._coordinator = Coordinator(
            authenticate=self.authenticate,
            on_change=self._changed,
            adoption_seconds=grace_seconds,
            unix=unix,
            protection=exchange,
        )

    async def start(self, port: int, context: SSLContext | None, host: str = "") -> int:
        """Listen, on every address where no host is named; gives the port, as the coordinator.

        Raises:
            OSError: the address cannot be had.
        """
        # asyncio holds a read buffer of this size for each TLS connection, 256 KiB by default;
        # our messages are small, and there may be thousands of workers.
        asyncio.sslproto.SSLProtocol.max_size = TLS_READ_BYTES
        return await self._coordinator.start(host, port, context)

    async def stop(self) -> None:
        await self._coordinator.stop()
        self._reviews.close()

    def open(self, job: JobView, action: OpenTask) -> None:
        self._keys[job.uid] = (job.namespace, job.name)
        self._asked[job.uid] = Asked(workers=action.workers, min_workers=action.min_workers)
        if action.generation_floor:
            self._settles[job.uid] = self._monotonic() + self._adoption_seconds + SETTLE_MARGIN
        trainer, compression, tasks = split_trainer(action.trainer)
        output = (job.manifest.get("spec") or {}).get("output")
        if tasks is not None:
            self._coordinator.open_pool(
                PoolAssignment(
                    pool=job.uid,
                    name=job.name,
                    workers=action.workers,
                    trainer=trainer,
                    tasks=tasks,
                    compression=compression,
                    output=output,
                    checkpoint=action.checkpoint,
                    report_seconds=self._report_seconds,
                    detection_seconds=action.detection_seconds,
                    began=action.generation_floor > 0,
                    record=action.record,
                    recoveries=action.recoveries,
                    seconds=action.seconds,
                    lost_steps=action.lost_steps,
                )
            )
            return
        self._coordinator.open_task(
            Assignment(
                task=job.uid,
                name=job.name,
                workers=action.workers,
                min_workers=action.min_workers,
                detection_seconds=action.detection_seconds,
                trainer=trainer,
                compression=compression,
                output=output,
                checkpoint=action.checkpoint,
                generation_floor=action.generation_floor,
                report_seconds=self._report_seconds,
                recoveries=action.recoveries,
                seconds=action.seconds,
                lost_steps=action.lost_steps,
                reached_step=action.reached_step,
            )
        )

    def resize(self, job: JobView, action: ResizeTask) -> None:
        self._note(job.uid, workers=action.workers, min_workers=action.min_workers)
        self._coordinator.resize_task(job.uid, action.workers, action.min_workers)

    def drain(self, job: JobView, action: DrainTask) -> None:
        self._note(job.uid, draining=True)
        self._coordinator.drain_task(job.uid, action.reason)

    def lost(self, job: JobView, action: LostWorker) -> None:
        known = self._asked.get(job.uid)
        if known is not None and action.uid:
            self._note(job.uid, lost=known.lost | {action.uid})
        self._coordinator.lost_worker(job.uid, action.worker, action.cause)

    def _note(self, uid: str, **changes: Any) -> None:
        if uid in self._asked:
            self._asked[uid] = replace(self._asked[uid], **changes)

    def close(self, job: JobView, reason: str, message: str) -> None:
        self.forget(job.uid, reason, message)

    def report(self, uid: str) -> TaskReport | None:
        return self._coordinator.report(uid)

    def asked(self, uid: str) -> Asked | None:
        """What the coordinator was last asked for; None where the task is not open."""
        asked = self._asked.get(uid)
        if asked is None or self._monotonic() >= self._settles.get(uid, 0.0):
            return asked
        return replace(asked, settled=False)

    def forget(self, uid: str, reason: str, message: str) -> None:
        self._coordinator.close_task(uid, reason, message)
        self._keys.pop(uid, None)
        self._asked.pop(uid, None)
        self._settles.pop(uid, None)

    async def authenticate(self, credential: Credential) -> Identity:
        """Whose connection this is.

        Raises:
            Refused: the token is of no living worker pod.
            ApiError, TooManyReviews: the API server could not be asked; the worker is to try again.
        """
        review = await self._reviews.status(credential.token, credential.place)
        if not review.get("authenticated"):
            raise Refused(REFUSED_WORKER, "the token is not valid for the coordinator")
        user = review.get("user") or {}
        extra = user.get("extra") or {}
        namespace = _namespace(str(user.get("username") or ""))
        name, uid = _first(extra.get(POD_NAME)), _first(extra.get(POD_UID))
        pod = self._pods.pod(namespace, name) if namespace and name and uid else None
        meta = (pod or {}).get("metadata") or {}
        # A token outlives its pod for a while, hence the look at the pods themselves.
        # One that is being deleted may still speak: it leaves at its next step boundary.
        if not uid or meta.get("uid") != uid:
            raise Refused(REFUSED_WORKER, "the token is of no worker pod that is there")
        owner, index = identity.owner_of(pod or {}), identity.worker_index(pod or {})
        if owner is None or index is None or owner.namespace != namespace:
            raise Refused(REFUSED_WORKER, f"pod {name} is no worker that the operator made")
        if not await self._is_job(owner):
            raise Refused(
                REFUSED_WORKER,
                f"pod {name}: there is no job {owner.name} of its uid in its namespace",
            )
        return Identity(task=owner.uid, worker=name, index=index)

    async def _is_job(self, owner: identity.Owner) -> bool:
        """Whether the owner is a job of its namespace: one of another namespace has no say here."""
        key = (owner.namespace, owner.name)
        known = self._keys.get(owner.uid)
        if known is not None:
            return known == key
        try:  # A worker may be earlier than its task, as after the operator's start.
            found = await self._cluster.get(names.PLURAL, *key)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return (found.get("metadata") or {}).get("uid") == owner.uid

    async def _review(self, token: str) -> Mapping[str, Any]:
        status = await self._cluster.review_token(token, TOKEN_AUDIENCE)
        meant = TOKEN_AUDIENCE in (status.get("audiences") or ())
        return {**status, "authenticated": bool(status.get("authenticated")) and meant}

    def _changed(self, uid: str) -> None:
        key = self._keys.get(uid)
        if key is not None:
            self._on_change(key)


def _namespace(username: str) -> str:
    parts = username.split(":")
    return parts[2] if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"] else ""


def _first(values: object) -> str:
    return str(values[0]) if isinstance(values, list) and values else ""
