"""Colours by meaning. A text is laid out plain, then painted, so widths are those of the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
STATES: Mapping[str, str] = {
    "Running": "green",
    "Succeeded": "green",
    "Starting": "cyan",
    "Pending": "cyan",
    "Recovering": "yellow",
    "Waiting": "yellow",
    "Suspending": "blue",
    "Suspended": "blue",
    "Failed": "red",
    "Invalid": "red",
}
"""The colour of each state of a job."""
RANKS = ("cyan", "magenta", "yellow", "green", "blue", "red")


@dataclass(frozen=True)
class Paint:
    """Paints texts, or leaves them alone."""

    enabled: bool = False

    def __call__(self, text: str, *styles: str) -> str:
        """The text in these styles; unknown ones and "" are passed over."""
        codes = ";".join(_CODES[style] for style in styles if style in _CODES)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.enabled and codes and text else text

    def state(self, state: str) -> str:
        return self(state, "bold", STATES.get(state, ""))

    def rank(self, text: str, rank: int) -> str:
        return self(text, RANKS[rank % len(RANKS)])


PLAIN = Paint()
