"""Bars, sparklines and curves out of characters. Pure; any numbers, NaN and infinities too."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

_LEVELS = "▁▂▃▄▅▆▇█"
NOT_A_NUMBER = "×"
POINT = "•"
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of a braille character's dot by row and column."""


def bar(fraction: float, width: int) -> tuple[str, str]:
    """The done and the open part of a bar; together they are `width` characters."""
    fraction = min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0
    # Rounded down: only what is done looks done.
    halves = int(fraction * 2 * width + 1e-9)
    done = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return done, "─" * (width - len(done))


def spark(values: Sequence[float], width: int) -> str:
    """The course of the values in at most `width` characters, from their least to their most.

    More values than that are averaged; where one of a cell's is not finite, the cell is a ×.
    """
    if not values or width < 1:
        return ""
    cells = [sum(part) / len(part) for part in _parts(values, width)]
    finite = [cell for cell in cells if math.isfinite(cell)]
    if not finite:
        return NOT_A_NUMBER * len(cells)
    low, span = min(finite), max(finite) - min(finite)

    def level(cell: float) -> str:
        if not math.isfinite(cell):
            return NOT_A_NUMBER
        part = (cell - low) / span if span > 0 and math.isfinite(span) else 0.0
        return _LEVELS[min(len(_LEVELS) - 1, int(part * len(_LEVELS)))]

    return "".join(map(level, cells))


def _parts(values: Sequence[float], count: int) -> list[Sequence[float]]:
    """The values in at most `count` runs whose lengths differ by one at the most."""
    count = min(count, len(values))
    ends = [len(values) * (place + 1) // count for place in range(count)]
    return [values[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def curve(
    courses: Sequence[Sequence[tuple[float, float]]],
    width: int,
    height: int,
    loose: Collection[int] = (),
) -> list[list[tuple[str, int]]]:
    """Courses of (x, y) in one frame of braille dots, 2 by 4 a character.

    Rows of (character, number of the course drawn last there, -1 for none). Points that are not
    finite are left out; neighbours are joined by a line, but those of the `loose` courses are a
    sign each.
    """
    known = [[p for p in course if all(map(math.isfinite, p))] for course in courses]
    points = [point for course in known for point in course]
    grid = [[(0, -1)] * width for _ in range(height)]
    if not points:
        return [[(" ", -1)] * width for _ in range(height)]
    columns, rows = 2 * width - 1, 4 * height - 1
    scale_x = _scale([x for x, _ in points], columns)
    scale_y = _scale([y for _, y in points], rows)
    signs: dict[tuple[int, int], int] = {}
    for number, course in enumerate(known):
        dots = [(scale_x(x), rows - scale_y(y)) for x, y in course]
        if number in loose:
            signs |= {(y // 4, x // 2): number for x, y in dots}
            continue
        for start, end in zip(dots, dots[1:] or dots, strict=False):
            for x, y in _line(start, end):
                bits, _ = grid[y // 4][x // 2]
                grid[y // 4][x // 2] = (bits | _DOTS[y % 4][x % 2], number)
    shown = [[(chr(_BRAILLE | bits) if bits else " ", n) for bits, n in row] for row in grid]
    for (row, column), number in signs.items():
        shown[row][column] = (POINT, number)
    return shown


def _scale(values: Sequence[float], most: int) -> Callable[[float], int]:
    low, high = min(values), max(values)
    span = high - low

    def place(value: float) -> int:
        part = (value - low) / span if span > 0 and math.isfinite(span) else 0.5
        return min(most, max(0, round(part * most)))

    return place


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots from start to end."""
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [
        (x0 + round((x1 - x0) * n / steps), y0 + round((y1 - y0) * n / steps))
        for n in range(steps + 1)
    ]
