"""A group that trains on while its coordinator is away, and comes back to the next one.

Workers reconnect with the generation they are in and its members. When all members of the highest
generation are back and none has left it, the group is adopted as it is: no worker notices. What
does not come in time is lost. Pure: times are given, none is read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from shardwise.coordinator.protocol import Hello
from shardwise.coordinator.report import Cause

BROKEN_SECONDS = 3.0
"""How long the missing are waited for once a member says that the group is broken."""

Outcome = Literal["wait", "adopt", "regroup", "none"]


class Adoption:
    """The time in which workers of a running group may come back.

    Args:
        until: its end.
    """

    def __init__(self, until: float) -> None:
        self.generation = 0
        """The highest that a worker came with."""
        self.members: tuple[str, ...] = ()
        """Its members, by rank."""
        self.deadline = until
        self._in_group: dict[str, int] = {}
        self._lost: dict[str, Cause] = {}

    def came(self, hello: Hello, now: float) -> None:
        """A worker is back, or a new one is there."""
        if hello.generation > self.generation and hello.members:
            self.generation, self.members = hello.generation, hello.members
        if hello.phase in ("loading", "ready"):
            # Whatever group it was in, it is not any more.
            self._in_group.pop(hello.worker, None)
            self._lost[hello.worker] = "Killed"
            return
        self._lost.pop(hello.worker, None)
        self._in_group[hello.worker] = hello.generation
        if hello.phase == "forming":
            self.left(hello.worker, now)

    def left(self, worker: str, now: float) -> None:
        """A worker is back, and its group is broken for it."""
        if worker in self._in_group:
            self._in_group[worker] = 0
        self.hurry(now)

    def hurry(self, now: float) -> None:
        """The group is in trouble: who is not back soon is not waited for."""
        self.deadline = min(self.deadline, now + BROKEN_SECONDS)

    def lost(self, worker: str, cause: Cause, now: float) -> None:
        """A worker is gone, whether it was back or not."""
        self._in_group.pop(worker, None)
        self._lost[worker] = cause
        if worker in self.members:
            self.hurry(now)

    def awaited(self) -> tuple[str, ...]:
        """Members that may still come, by rank."""
        known = self._in_group.keys() | self._lost.keys()
        return tuple(worker for worker in self.members if worker not in known)

    def missing(self) -> dict[str, Cause]:
        """Members that are not back, and why as far as is known."""
        return {
            worker: self._lost.get(worker, "Unreachable")
            for worker in self.members
            if worker not in self._in_group
        }

    def outcome(self, now: float, connected: Collection[str]) -> Outcome:
        """What has become of it; `connected` are the workers that are there now."""
        if self.members and all(
            self._in_group.get(worker) == self.generation and worker in connected
            for worker in self.members
        ):
            return "adopt"
        if self.members and not self.awaited():
            return "regroup"
        if now < self.deadline:
            return "wait"
        return "regroup" if self._in_group else "none"
