"""Plots of tasks out of characters. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from shardwise.cli.view.axes import axes, quality
from shardwise.cli.view.bars import curve
from shardwise.cli.view.rows import Objective, Row, Tasks, bests, front, in_order, value
from shardwise.cli.view.style import Paint
from shardwise.cli.view.tasks import best_words, figure, figures, parameters

LISTED = 12
Points = Sequence[tuple[float, float]]


def history(tasks: Tasks, aim: Objective, width: int, height: int, paint: Paint) -> list[str]:
    """The objective by the order of ends, and the best so far."""
    ended = in_order(tasks, aim)
    values = [value(row, aim) for row in ended]
    points = [(float(n), y) for n, y in enumerate(values, 1)]
    best = [(float(n), y) for n, y in enumerate(bests(ended, aim), 1)]
    line = _stairs([point for point in best if math.isfinite(point[1])])
    rows = curve([line, points], max(10, width - 14), height, loose=(1,))
    return [
        *_framed(rows, values, [x for x, _ in points], "ended", paint),
        f"  {paint.rank('━━', 0)} best so far   {paint.rank('•', 1)} {aim.metric} of each task",
        *_best(tasks),
    ]


def pareto(
    tasks: Tasks, first: Objective, second: Objective, width: int, height: int, paint: Paint
) -> list[str]:
    """Two objectives, and the front."""
    rows = both(tasks, first, second)
    points = [(value(row, second), value(row, first)) for row in rows]
    ahead = front(points, (second.least, first.least))
    line = _stairs([points[place] for place in ahead], second.least)
    drawn = curve([line, points, [points[n] for n in ahead]], max(10, width - 14), height, (1, 2))
    names = [f"{rows[n].name}: {figures(rows[n], [first.metric, second.metric])}" for n in ahead]
    told = [f"{name} · {parameters(rows[n])}" for name, n in zip(names, ahead, strict=True)]
    more = [f"… and {len(told) - LISTED} more"] if len(told) > LISTED else []
    return [
        *_framed(drawn, [y for _, y in points], [x for x, _ in points], second.metric, paint),
        f"  {paint.rank('•', 2)} the front of {first.metric} ({_aim(first)}) and {second.metric} "
        f"({_aim(second)})   {paint.rank('•', 1)} other tasks",
        *[f"  {line}" for line in [*told[:LISTED], *more]],
    ]


def _aim(objective: Objective) -> str:
    return "less is better" if objective.least else "more is better"


def both(tasks: Tasks, first: Objective, second: Objective) -> list[Row]:
    """The tasks that have ended with both figures."""
    return [
        row
        for row in tasks.rows
        if row.state == "Succeeded"
        and math.isfinite(value(row, first))
        and math.isfinite(value(row, second))
    ]


def _stairs(points: Points, low_first: bool = True) -> list[tuple[float, float]]:
    """The points joined by steps: nothing between two of them is better than both."""
    found: list[tuple[float, float]] = []
    for start, end in pairwise(points):
        found += [start, (end[0], start[1]) if low_first else (start[0], end[1])]
    return [*found, *points[-1:]]


def parallel(tasks: Tasks, aim: Objective, width: int, height: int, paint: Paint) -> list[str]:
    """A line for each task through its parameters and the figure; the better, the later drawn."""
    rows = [row for row in tasks.rows if math.isfinite(value(row, aim))]
    found = axes(tasks, rows, [aim.metric])
    ranks = quality(tasks, rows)
    order = sorted(range(len(rows)), key=lambda n: ranks[n])
    courses = [[(float(n), axis.places[task]) for n, axis in enumerate(found)] for task in order]
    corners = [(0.0, 0.0), (0.0, 1.0), (float(len(found) - 1), 0.0)]
    inner = max(10, width - 12)
    drawn = curve([*courses, corners], inner, height, loose=(len(courses),))
    cells = [[(sign if n < len(order) else " ", n) for sign, n in row] for row in drawn]
    marks: dict[tuple[int, int], str] = {}
    for n, axis in enumerate(found):
        column = round(n * (inner - 1) / max(1, len(found) - 1))
        for place, text in axis.marks:
            line = round((1 - place) * (height - 1))
            for offset, sign in enumerate(f"┤{text}"):
                marks[line, column + offset] = sign
    lines = []
    for line in range(height):
        body = []
        for column in range(width):
            if (line, column) in marks:
                body.append(marks[line, column])
            elif column < inner:
                sign, n = cells[line][column]
                body.append(paint(sign, _colour(n, len(order))) if sign != " " else sign)
        lines.append("".join(body).rstrip())
    head = [" "] * width
    for n, axis in enumerate(found):
        column = round(n * (inner - 1) / max(1, len(found) - 1))
        space = (inner - 1) // max(1, len(found) - 1) - 1 if len(found) > 1 else width
        for offset, sign in enumerate(axis.label[: max(4, space)]):
            if column + offset < width:
                head[column + offset] = sign
    legend = [paint("best tenth", "green"), paint("better half", "cyan"), paint("the rest", "dim")]
    return ["".join(head).rstrip(), *lines, "", f"  {' · '.join(legend)}", *_best(tasks)]


def _colour(place: int, count: int) -> str:
    """Of a task's line: `place` counts from the worst."""
    if place >= count - max(1, count // 10):
        return "green"
    return "cyan" if 2 * place >= count else "dim"


def _best(tasks: Tasks) -> list[str]:
    return [f"  best {best_words(tasks)}"] if tasks.best is not None else []


def _framed(
    rows: Sequence[Sequence[tuple[str, int]]],
    values: Sequence[float],
    across: Sequence[float],
    label: str,
    paint: Paint,
) -> list[str]:
    """The rows with marks at the left and at the foot."""
    height = len(rows)
    low, high = min(values), max(values)
    at = {0: figure(high), height // 2: figure((low + high) / 2), height - 1: figure(low)}
    margin = max(map(len, at.values()))
    lines = []
    for number, row in enumerate(rows):
        body = "".join(paint.rank(sign, n) if n >= 0 else sign for sign, n in row)
        lines.append(f"{at.get(number, '').rjust(margin)} ┤{body.rstrip()}")
    left, right = figure(min(across)), f"{label} {figure(max(across))}"
    gap = max(1, len(rows[0]) - len(left) - len(right))
    return [*lines, f"{' ' * margin}  {left}{' ' * gap}{right}"]
