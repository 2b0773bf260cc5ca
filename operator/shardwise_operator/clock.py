"""The cluster's time: the API server's own, as the Date of its answers tells it.

Ages are of that one clock, or of what this process has seen itself. This machine's clock may be
hours off, and so may each node's: neither is compared with what the API server wrote.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from shardwise_operator.observe import PodView, parse_time


class ClusterClock:
    """The API server's time, to within a second and an answer's way; our own until it answers."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._offset = unix() - monotonic()
        self._heard = False

    def heard(self, date: str | None, sent: float, received: float) -> None:
        """An answer with this header Date, asked for and received at these monotonic times."""
        try:
            told = parsedate_to_datetime(date or "")
        except ValueError:
            return
        if told.tzinfo is None:
            told = told.replace(tzinfo=UTC)
        # The Date is cut to a second, and was told somewhere between the two times.
        least, most = told.timestamp() - received, told.timestamp() + 1 - sent
        if not self._heard:
            self._offset = (least + most) / 2
        self._offset = min(max(self._offset, least), most)
        self._heard = True

    def timestamp(self) -> float:
        """Unix seconds."""
        return self._monotonic() + self._offset

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp(), UTC)


class FirstSeen:
    """When what a job's pods tell was first seen, on the clock that decisions go by."""

    def __init__(self) -> None:
        self._ended: dict[str, datetime] = {}
        self._given: dict[str, datetime] = {}
        self._rejected: dict[int, set[str]] = {}

    def aged(
        self, pods: Iterable[PodView], status: Mapping[str, Any], now: datetime
    ) -> tuple[PodView, ...]:
        """The pods with these times. An end that the status has noted was seen then."""
        pods = tuple(pods)
        noted = {
            str(entry.get("uid")): parse_time(entry.get("time"))
            for entry in (status.get("restarts") or {}).get("recent") or ()
        }
        for pod in pods:
            if pod.given:
                self._given.setdefault(pod.uid, now)
            else:
                self._given.pop(pod.uid, None)
            if pod.turned_away:
                self._rejected.setdefault(pod.index, set()).add(pod.uid)
            elif pod.running or pod.ended:
                self._rejected.pop(pod.index, None)
            if pod.ended:
                self._ended.setdefault(pod.uid, noted.get(pod.uid) or now)
        there = {pod.uid for pod in pods}
        for times in (self._ended, self._given):
            for uid in times.keys() - there:
                del times[uid]
        return tuple(
            replace(
                pod,
                ended_at=self._ended.get(pod.uid),
                given_at=self._given.get(pod.uid),
                rejections=len(self._rejected.get(pod.index, ())) if pod.turned_away else 0,
            )
            for pod in pods
        )
