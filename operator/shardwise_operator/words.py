"""What the newest warning about a pod says, asked for where the pod's status does not tell.

A volume that cannot be mounted shows in Events only. One question at a time for a job, and seldom.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from shardwise_operator.decide.diagnosis import NOW, slow_in
from shardwise_operator.observe import PodView
from shardwise_operator.port import ApiError, Cluster

log = logging.getLogger(__name__)

ASK_AGAIN = timedelta(seconds=30)
LIMIT = 50
LENGTH = 500


class Words:
    """Of one job's pods."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._asked: datetime | None = None

    async def of(
        self, cluster: Cluster, namespace: str, pods: Sequence[PodView], now: datetime
    ) -> Mapping[str, str]:
        """By uid; of the first pod that does not start, whose trouble stands for all."""
        slow = next((pod for pod in pods if slow_in(pod, now) == NOW), None)
        if slow is None:
            self._known, self._asked = {}, None
        elif self._asked is None or now - self._asked >= ASK_AGAIN or slow.uid not in self._known:
            self._asked = now
            try:
                found = await cluster.list_page(
                    "events", namespace, fields=f"involvedObject.uid={slow.uid}", limit=LIMIT
                )
            except ApiError as error:  # Without the right to, less is told.
                log.info("the Events of pod %s/%s: %s", namespace, slow.name, error)
                found = {}
            self._known = {slow.uid: newest_warning(found.get("items") or ())}
        return self._known


def newest_warning(events: Sequence[Mapping[str, Any]]) -> str:
    """Its reason and message; empty where there is none. All times are of one node."""
    found = [event for event in events if event.get("type") == "Warning"]
    newest = max(found, key=_when, default=None)
    if newest is None:
        return ""
    message = " ".join(str(newest.get("message") or "").split())
    return f"{newest.get('reason')}: {message}"[:LENGTH]


def _when(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    meta = event.get("metadata") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or meta.get("creationTimestamp")
        or ""
    )
