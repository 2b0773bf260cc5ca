"""What the training thread is doing, as the control thread tells it to a coordinator that asks.

The training thread beats between shards and around exchanges. From the beats follow how long it
has been at its present activity, and how long is usual: a thread that computes for ten times its
usual time hangs, and one that waits in an exchange for longer than usual has a peer in trouble.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from shardwise.engine.activity import Activity

WINDOW = 64
"""Exchanges that the usual wait is taken over."""
SUSPICION_FACTOR = 3.0


class Sight(NamedTuple):
    """The training thread at one moment; times in seconds."""

    activity: Activity
    age: float
    """Since the last beat."""
    usual: float
    """The longest that computing has taken between two beats; 0 where it is not known yet."""


class ActivityLog:
    """Written by the training thread, read by the control thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._activity: Activity = "loading"
        self._since = clock()
        self._longest = 0.0
        self._waits: deque[float] = deque(maxlen=WINDOW)

    def beat(self, activity: Activity) -> None:
        """The training thread lives, and begins with this."""
        with self._lock:
            now = self._clock()
            spent = now - self._since
            if self._activity == "computing":
                self._longest = max(self._longest, spent)
            elif self._activity == "exchanging":
                self._waits.append(spent)
            self._activity, self._since = activity, now

    def forget_wait(self) -> None:
        """The exchange under way broke: how long it took says nothing."""
        with self._lock:
            self._activity, self._since = "waiting", self._clock()

    def sight(self) -> Sight:
        with self._lock:
            return Sight(self._activity, self._clock() - self._since, self._longest)

    def overdue(self, floor: float) -> float | None:
        """How long it has waited in an exchange, where that is longer than usual; else None.

        Args:
            floor: seconds that are never too long.
        """
        with self._lock:
            if self._activity != "exchanging":
                return None
            waited = self._clock() - self._since
            usual = median(self._waits) if self._waits else 0.0
            return waited if waited > max(floor, SUSPICION_FACTOR * usual) else None
