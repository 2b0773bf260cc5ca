"""Which status writes are worth sending: all that tell something, and progress now and then.

Every write goes to every watcher of the job. So one that tells nothing but progress waits for 10
seconds or one per cent more, and for a token of a bucket that all jobs share. What has come of a
pool's tasks waits for 2 seconds: another coordinator goes on from it. And what tells something is
told at once only so often: a worker's messages may change a condition's text as fast as they come.
Does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardwise.coordinator.budget import Meter

PROGRESS_SECONDS = 10.0
PROGRESS_KEYS = frozenset({"progress", "goodput", "goodputSeconds", "checkpoint"})
"""Parts of a status that change all the time while nothing happens. A checkpoint that fails shows
in the conditions too, which are written at once."""
NEWS = (1.0, 20.0)
"""Writes of one job that tell something: a second, and at once after a pause."""
ROUNDING = 1e-6
"""Seconds that a turn's time may be off by."""
TASKS_SECONDS = 2.0
"""Between two writes of what tasks have come to: their workers tell a new coordinator of no more
than their last few results."""
TASKS_KEYS = frozenset({"tasks", "message", "recoveriesByCause"})
"""What changes with every task of a pool."""
TASKS_PARTS = {
    "workers": frozenset({"members", "generation"}),
    "tasks": frozenset({"items", "utilization"}),
}
"""Of some parts of a status, the fields that change with every task; of the tasks, those that tell
no more than progress does."""


@dataclass(slots=True)
class LastWrite:
    """When a job's status was last written by this process."""

    at: float = float("-inf")
    turn: float | None = None
    """From when the next one has a token, where it waits for one."""
    news: Meter = field(default_factory=lambda: Meter(*NEWS))
    """Of those that tell something."""


class TokenBucket:
    """So many tokens a second, and at most a second's worth at once.

    Who waits has a turn of its own: were all told when the next token comes, hundreds of jobs would
    ask for each of them.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._interval = 1 / rate
        self._saved = max(1.0, rate) - 1
        self._clock = clock
        self._free = clock() - self._saved * self._interval
        """When the first token comes that nobody has a turn for."""

    def take(self, write: LastWrite) -> float:
        """Takes a token and gives 0, or gives the seconds until the write's turn."""
        now = self._clock()
        if write.turn is None:
            write.turn = max(self._free, now - self._saved * self._interval)
            self._free = write.turn + self._interval
        left = write.turn - now
        if left > ROUNDING:
            return left
        write.turn = None
        return 0.0


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch from old to new; empty where they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = merge_patch(before, value)
            if inner:
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch


def postponed(
    patch: Mapping[str, Any],
    old: Mapping[str, Any],
    last: LastWrite,
    bucket: TokenBucket,
    now: float,
) -> float:
    """Seconds that the write has to wait; 0 to send it now."""
    news = set(patch) - PROGRESS_KEYS
    if news and "tasks" in old:
        news = _beside_tasks(patch, old, news)
        if not news and _tells_of_tasks(patch):
            left = last.at + TASKS_SECONDS - now
            return left if left > 0 else bucket.take(last)
    if news:
        # Counted where it is sent: that is when this gives 0.
        left = last.news.charge(0, now)
        if left <= ROUNDING:
            last.news.charge(1, now)
            return 0.0
        return left
    before = (old.get("progress") or {}).get("percent")
    percent = (patch.get("progress") or {}).get("percent", before)
    left = last.at + PROGRESS_SECONDS - now
    if left > 0 and percent == before:
        return left
    return bucket.take(last)


def _beside_tasks(patch: Mapping[str, Any], old: Mapping[str, Any], keys: set[str]) -> set[str]:
    """The keys that tell more than the coming and going of a pool's tasks."""
    found = keys - TASKS_KEYS
    if "conditions" in found and _but_messages(patch) == _but_messages(old):
        found.remove("conditions")
    workers = patch.get("workers")
    if isinstance(workers, Mapping) and set(workers) <= TASKS_PARTS["workers"]:
        found.discard("workers")
    return found


def _but_messages(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    conditions = status.get("conditions") or ()
    return [{key: entry[key] for key in entry if key != "message"} for entry in conditions]


def _tells_of_tasks(patch: Mapping[str, Any]) -> bool:
    """Whether it tells what a task has come to, or that one has begun."""
    return bool(set(patch.get("tasks") or ()) - TASKS_PARTS["tasks"])
