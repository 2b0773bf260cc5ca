"""The axes of a plot with parallel coordinates: where each task's values lie. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shardwise.cli.view.rows import Row, Tasks, value
from shardwise.cli.view.tasks import cut, figure

FEW = 6
"""So many different values lie at equal distances, each with its mark."""
RATIO = 30.0
"""From this ratio of the greatest to the least, an axis is logarithmic."""
ABSENT = "none"


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter or figure of all tasks."""

    label: str
    places: tuple[float, ...]
    """From 0 at the foot to 1, by task; NaN where it has none and none is marked."""
    marks: tuple[tuple[float, str], ...]
    """Place and text."""


def axes(tasks: Tasks, rows: Sequence[Row], metrics: Sequence[str]) -> list[Axis]:
    """An axis for each parameter of the tasks, then for each of these figures."""
    found = [_axis(name, [row.parameters.get(name) for row in rows]) for name in tasks.parameters]
    return found + [
        _figures(name, [row.metrics.get(name, math.nan) for row in rows]) for name in metrics
    ]


def _axis(label: str, values: Sequence[str | None]) -> Axis:
    present = {each for each in values if each is not None}
    numbers = {each: _number(each) for each in present}
    numeric = all(map(math.isfinite, numbers.values()))
    absent = len(present) < len(set(values))
    if numeric and len(present) > FEW and not absent:
        return _figures(label, [numbers[each] for each in values if each is not None])
    order = sorted(present, key=lambda each: (numbers[each] if numeric else 0.0, each))
    known: list[str | None] = [*([None] if absent else []), *order]
    places = {
        each: (n / (len(known) - 1) if len(known) > 1 else 0.5) for n, each in enumerate(known)
    }
    marked = known if len(known) <= 2 * FEW else [known[0], known[-1]]
    marks = [(places[each], ABSENT if each is None else cut(each)) for each in marked]
    return Axis(label, tuple(places[each] for each in values), tuple(marks))


def _figures(label: str, values: Sequence[float]) -> Axis:
    finite = [each for each in values if math.isfinite(each)]
    if not finite:
        return Axis(label, (math.nan,) * len(values), ())
    low, high = min(finite), max(finite)
    logarithmic = low > 0 and high / low >= RATIO
    scale = math.log if logarithmic else float
    bottom, span = scale(low), scale(high) - scale(low)

    def place(found: float) -> float:
        if not math.isfinite(found):
            return math.nan
        return (scale(found) - bottom) / span if span > 0 else 0.5

    parts = (0.0, 0.25, 0.5, 0.75, 1.0) if span > 0 else (0.5,)
    at = [bottom + span * part if span > 0 else bottom for part in parts]
    texts = [figure(_short(math.exp(each) if logarithmic else each)) for each in at]
    return Axis(label, tuple(map(place, values)), tuple(zip(parts, texts, strict=True)))


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def quality(tasks: Tasks, rows: Sequence[Row]) -> list[float]:
    """How good each task is by the first objective: from 0, the worst, to 1, by rank."""
    aim = tasks.objectives[0]
    order = sorted(range(len(rows)), key=lambda n: (aim.cost(rows[n]), n), reverse=True)
    known = {n: place / max(1, len(rows) - 1) for place, n in enumerate(order)}
    return [known[n] if math.isfinite(value(row, aim)) else 0.0 for n, row in enumerate(rows)]
