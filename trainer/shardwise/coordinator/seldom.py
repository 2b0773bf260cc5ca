"""Lines in the log that anybody can bring about: some, and then how many more there were. Pure."""

from __future__ import annotations

from shardwise.coordinator.budget import Meter

LINES = (0.5, 20.0)
"""A second, and at once after a pause."""


class Seldom:
    """Says whether a line is to be written."""

    def __init__(self) -> None:
        self._meter = Meter(*LINES)
        self._missed = 0

    def line(self, text: str, now: float) -> str | None:
        """The line to write, with the number of those that were not; None for none."""
        if self._meter.used(now) >= 1:
            self._missed += 1
            return None
        self._meter.charge(1, now)
        missed, self._missed = self._missed, 0
        return f"{text} (and {missed} others that are not told)" if missed else text
