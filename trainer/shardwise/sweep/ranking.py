"""Which of many results are the best ones.

Pure. A row is the objectives of one task in order, or None where it has none; it is named by its
place. Ties go to the lower number. A row with a value that is not finite is none of the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Row = Sequence[float] | None


def costs(values: Sequence[float], directions: Sequence[str]) -> tuple[float, ...]:
    """The objectives so that less is better in each.

    Args:
        values: the objectives, in order.
        directions: of each, `Maximize` or `Minimize`.
    """
    return tuple(
        -value if direction == "Maximize" else value
        for value, direction in zip(values, directions, strict=True)
    )


def best(rows: Sequence[Row], directions: Sequence[str]) -> int | None:
    """The row that is best in the first objective; among equals, in the next, and so on. So it is
    one of `pareto`. None: no row has values."""
    ranked = _ranked(rows, directions)
    return min(ranked)[1] if ranked else None


def pareto(rows: Sequence[Row], directions: Sequence[str]) -> tuple[int, ...]:
    """The rows that no other is better than in one objective and as good as in all, best in the
    first objective first. Of rows with the same values, the first alone."""
    front: list[tuple[float, ...]] = []
    found = []
    # In this order a row can be beaten by earlier ones only.
    for cost, number in sorted(_ranked(rows, directions)):
        if len(cost) <= 2:  # Only the last one found can beat it.
            beaten = bool(front) and front[-1][-1] <= cost[-1]
        else:
            beaten = any(_covers(other, cost) for other in front)
        if not beaten:
            front.append(cost)
            found.append(number)
    return tuple(found)


def _covers(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def _ranked(rows: Sequence[Row], directions: Sequence[str]) -> list[tuple[tuple[float, ...], int]]:
    return [
        (costs(row, directions), number)
        for number, row in enumerate(rows)
        if row is not None and directions and all(math.isfinite(value) for value in row)
    ]
