"""Kubernetes Events about jobs: one object for each thing that happens, counted up on repeats.

Sent in the background, and dropped when too many wait: an Event is a courtesy, and must never hold
up a job. Of one reason a job gets some at once and then few: a worker that crashes for hours tells
no more by the thousandth.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from shardwise_operator import names
from shardwise_operator.actions import EmitEvent
from shardwise_operator.observe import JobView
from shardwise_operator.port import ApiError, Cluster

log = logging.getLogger(__name__)

WAITING = 1000
REMEMBERED = 4096
BURST = 10
REFILL_SECONDS = 60.0
"""Events of one job and reason: so many at once, and one more each time this passes."""
MESSAGE_BYTES = 1024
"""What the API takes."""


class EventRecorder:
    """Records Events without waiting for the API."""

    def __init__(
        self,
        cluster: Cluster,
        count: Callable[[str], None],
        *,
        instance: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._instance = instance or names.MANAGER
        self._count = count
        self._now = now
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=WAITING)
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._allowed: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def record(self, job: JobView, event: EmitEvent) -> None:
        now = self._now()
        if not self._allow((job.uid, event.reason), now.timestamp()):
            self._count("dropped")
            return
        try:
            self._queue.put_nowait(event_manifest(job, event, now, self._instance))
        except asyncio.QueueFull:
            self._count("dropped")

    async def run(self) -> None:
        """Sends what is recorded. Never ends."""
        while True:
            body = await self._queue.get()
            try:
                await self._send(body)
            except ApiError as error:
                self._count("dropped")
                log.info("an Event about %s was dropped: %s", body["involvedObject"]["name"], error)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Waits until all that is recorded has been sent or dropped."""
        await self._queue.join()

    def _allow(self, key: tuple[str, str], now: float) -> bool:
        """Takes a token of the key's bucket, where it has one."""
        tokens, at = self._allowed.get(key, (float(BURST), now))
        tokens = min(float(BURST), tokens + max(0.0, now - at) / REFILL_SECONDS)
        allowed = tokens >= 1
        self._allowed[key] = (tokens - 1 if allowed else tokens, now)
        self._allowed.move_to_end(key)
        while len(self._allowed) > REMEMBERED:
            self._allowed.popitem(last=False)
        return allowed

    async def _send(self, body: dict[str, Any]) -> None:
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        seen = self._counts.get(name, 0)
        if seen == 0:
            try:
                await self._cluster.create("events", namespace, body)
            except ApiError as error:
                if error.status != 409:
                    raise
                seen = 1  # By an earlier process.
            else:
                self._remember(name, 1)
                self._count("sent")
                return
        change = {"count": seen + 1, "lastTimestamp": body["lastTimestamp"]}
        try:
            await self._cluster.patch("events", namespace, name, change)
        except ApiError as error:
            if error.status != 404:  # Else it has expired, and the next time makes it anew.
                raise
            seen = -1
        self._remember(name, seen + 1)
        self._count("repeated")

    def _remember(self, name: str, count: int) -> None:
        self._counts[name] = count
        self._counts.move_to_end(name)
        while len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)


def event_manifest(job: JobView, event: EmitEvent, now: datetime, instance: str) -> dict[str, Any]:
    """The Event; the same thing said again has the same name.

    Args:
        instance: the operator's pod.
    """
    message = event.message.encode()[:MESSAGE_BYTES].decode(errors="ignore")
    digest = hashlib.sha256(f"{job.uid}/{event.type}/{event.reason}/{message}".encode()).hexdigest()
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{job.name}.{digest[:16]}", "namespace": job.namespace},
        "involvedObject": {
            "apiVersion": f"{names.GROUP}/{names.VERSION}",
            "kind": names.KIND,
            "namespace": job.namespace,
            "name": job.name,
            "uid": job.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": message,
        "action": event.action,
        "reportingComponent": names.CONTROLLER,
        "reportingInstance": instance,
        # What `kubectl describe` prints as From.
        "source": {"component": "shardwise-operator"},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
