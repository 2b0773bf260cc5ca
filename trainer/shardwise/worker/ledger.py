"""Where a worker's wall time goes: what goodput is made of.

Every moment belongs to one kind. A step's time counts as productive once the step is done, and as
retried when it broke. Rank 0's ledger stands for the group: a worker that becomes rank 0 after a
loss starts with what it lived through since then, so that no second is told twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

Kind = Literal["productive", "rendezvous", "recovery", "checkpoint", "retried", "waiting"]


class Ledger:
    """Seconds by kind since they were last taken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[Kind, float] = {}
        self._since = clock()

    def spend(self, kind: Kind) -> float:
        """The time since the last call went into this; gives the seconds."""
        now = self._clock()
        spent, self._since = now - self._since, now
        self._seconds[kind] = self._seconds.get(kind, 0.0) + spent
        return spent

    def take(self) -> dict[str, float]:
        """The seconds by kind, and start anew."""
        taken: dict[str, float] = {
            kind: round(seconds, 6) for kind, seconds in self._seconds.items()
        }
        self._seconds.clear()
        return taken

    def forget(self) -> None:
        """Another worker has told of the time so far."""
        self._seconds.clear()
