"""Which status writes are worth sending: all that tell something, and progress now and then.

Every write goes to every watcher of the job. So one that tells nothing but progress waits for 10
seconds or one per cent more, and for a token of a bucket that all jobs share. Does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PROGRESS_SECONDS = 10.0
PROGRESS_KEYS = frozenset({"progress", "goodput", "goodputSeconds", "checkpoint"})
"""Parts of a status that change all the time while nothing happens. A checkpoint that fails shows
in the conditions too, which are written at once."""


class TokenBucket:
    """So many tokens a second, and at most a second's worth at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = max(1.0, rate)
        self._tokens = self._burst
        self._clock = clock
        self._at = clock()

    def take(self) -> float:
        """Takes a token and gives 0, or gives the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate


@dataclass(slots=True)
class LastWrite:
    """When a job's status was last written by this process."""

    at: float = float("-inf")


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
    if set(patch) - PROGRESS_KEYS:
        return 0.0
    before = (old.get("progress") or {}).get("percent")
    percent = (patch.get("progress") or {}).get("percent", before)
    left = last.at + PROGRESS_SECONDS - now
    if left > 0 and percent == before:
        return left
    return bucket.take()
