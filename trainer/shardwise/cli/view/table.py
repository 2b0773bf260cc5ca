"""Tables as kubectl prints them: headings in capitals, columns three spaces apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

GAP = "   "
Style = Callable[[str, str], str]
"""From the column's heading and the padded text of a cell to the painted text."""


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], style: Style | None = None
) -> list[str]:
    """The lines; the last column is not padded."""
    cells = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(headings))]
    lines = []
    for number, row in enumerate(cells):
        last = len(row) - 1
        padded = [
            cell if place == last else cell.ljust(widths[place]) for place, cell in enumerate(row)
        ]
        if style and number:
            padded = [style(heading, cell) for heading, cell in zip(headings, padded, strict=True)]
        lines.append(GAP.join(padded).rstrip())
    return lines


def indented(lines: Sequence[str], by: str = "  ") -> list[str]:
    return [f"{by}{line}" if line else "" for line in lines]


def wrapped(words: str, width: int, by: str = "  ") -> list[str]:
    """A text folded at `width`, each of its own lines apart."""
    import textwrap

    return [
        line
        for part in words.splitlines() or [""]
        for line in textwrap.wrap(
            part, max(20, width), initial_indent=by, subsequent_indent=by, break_on_hyphens=False
        )
        or [""]
    ]
