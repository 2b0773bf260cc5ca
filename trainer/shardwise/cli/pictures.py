"""Plots as PNG files, with matplotlib."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardwise.cli.errors import CliError
from shardwise.cli.view.axes import axes
from shardwise.cli.view.charts import both
from shardwise.cli.view.rows import Objective, Tasks, bests, front, in_order, value
from shardwise.cli.view.tasks import figures, parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINT, LINE, STOPPED, STAR = "#4c78a8", "#d1495b", "#9aa5b1", "#e9a23b"
LABELLED = 12
CURVED = 24
"""Points of a line between two axes."""


def new_figure(width: float, height: float) -> Figure:
    """Raises CliError where matplotlib is not installed. Sizes are in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CliError(
            "--output: a PNG needs matplotlib: pip install 'shardwise[trainer]', or leave "
            "--output out to draw on the terminal"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, output: Path) -> None:
    """Raises CliError where the file cannot be written."""
    try:
        figure.savefig(output, format="png", dpi=150)
    except OSError as error:
        raise CliError(f"--output: {output}: {error.strerror}") from error


def history(tasks: Tasks, aim: Objective, output: Path, logarithmic: bool) -> None:
    """The objective by the order of ends, and the best so far."""
    figure = new_figure(8, 4.5)
    plot = _axes(figure, tasks, "tasks in the order in which they ended", _label(aim))
    rows = in_order(tasks, aim)
    values = [value(row, aim) for row in rows]
    numbers = range(1, len(rows) + 1)
    for state, colour, filled in (("Succeeded", POINT, True), ("Stopped", STOPPED, False)):
        shown = [
            (x, y) for x, y, row in zip(numbers, values, rows, strict=True) if row.state == state
        ]
        if shown:
            plot.scatter(
                *zip(*shown, strict=True),
                s=22 if len(rows) < 200 else 9,
                facecolors=colour if filled else "none",
                edgecolors=colour,
                label=state,
                zorder=2,
            )
    plot.step(
        numbers, bests(rows, aim), where="post", color=LINE, lw=1.8, label="best so far", zorder=3
    )
    if tasks.best is not None and tasks.best in rows:
        place = rows.index(tasks.best)
        plot.scatter([place + 1], [values[place]], marker="*", s=190, color=STAR, zorder=4)
        plot.annotate(
            tasks.best.name,
            (place + 1, values[place]),
            xytext=(0, -16 if not aim.least else 10),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    if logarithmic:
        plot.set_yscale("log")
    plot.xaxis.get_major_locator().set_params(integer=True)
    plot.legend(frameon=False)
    save(figure, output)


def pareto(
    tasks: Tasks, first: Objective, second: Objective, output: Path, logarithmic: bool
) -> None:
    """Two objectives, and the front, whose tasks have their names at them."""
    figure = new_figure(8, 5)
    plot = _axes(figure, tasks, _label(second), _label(first))
    rows = both(tasks, first, second)
    points = [(value(row, second), value(row, first)) for row in rows]
    ahead = front(points, (second.least, first.least))
    behind = [point for place, point in enumerate(points) if place not in set(ahead)]
    if behind:
        plot.scatter(*zip(*behind, strict=True), s=30, color=STOPPED, label="other tasks", zorder=2)
    line = [points[place] for place in ahead]
    xs, ys = [x for x, _ in line], [y for _, y in line]
    plot.step(xs, ys, where="post" if second.least else "pre", color=LINE, lw=1.5, zorder=1)
    plot.scatter(xs, ys, s=55, color=LINE, label="no other task is better in both", zorder=3)
    labelled = ahead[:LABELLED]
    for number, place in enumerate(labelled):
        # By turns on both sides of the front, so that neighbours do not cover each other; the last
        # one on the side on which there is room.
        left = number % 2 == 1 or number == len(labelled) - 1
        below = left if first.least else not left
        plot.annotate(
            parameters(rows[place]) or rows[place].name,
            points[place],
            xytext=(-7 if left else 7, -4 if below else 4),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top" if below else "bottom",
            fontsize=8,
        )
    if logarithmic:
        plot.set_xscale("log")
    else:
        plot.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if abs(x) >= 1 else f"{x:g}")
    plot.margins(x=0.16, y=0.12)
    plot.legend(frameon=False, loc="best")
    save(figure, output)


def parallel(tasks: Tasks, aim: Objective, output: Path) -> None:
    """A line for each task through its parameters and the figure, coloured by the figure."""
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    rows = sorted(
        (row for row in tasks.rows if math.isfinite(value(row, aim))),
        key=lambda row: aim.cost(row),
        reverse=True,
    )
    found = axes(tasks, rows, [aim.metric])
    figure = new_figure(max(6.5, 1.7 * len(found) + 1.5), 4.6)
    plot = figure.add_subplot()
    values = sorted(value(row, aim) for row in rows)
    # A few tasks that went wrong would leave one colour to all others.
    tenth = len(values) // 10
    low, high = (values[0], values[-1 - tenth]) if aim.least else (values[tenth], values[-1])
    shades = ScalarMappable(Normalize(low, high), "viridis" if aim.least else "viridis_r")
    lines = [_smooth([axis.places[n] for axis in found]) for n in range(len(rows))]
    plot.add_collection(
        LineCollection(
            lines,
            colors=shades.to_rgba(np.array([value(row, aim) for row in rows])),
            linewidths=1.4 if len(rows) < 200 else 0.7,
            alpha=0.75 if len(rows) < 200 else 0.45,
        )
    )
    if tasks.best in rows:
        plot.add_collection(
            LineCollection([lines[rows.index(tasks.best)]], colors=[LINE], linewidths=2.6)
        )
    last = len(found) - 1
    for place, axis in enumerate(found):
        plot.axvline(place, color="#333333", lw=1, zorder=0)
        for at, text in axis.marks:
            plot.annotate(
                text,
                (place, at),
                xytext=(6, 0) if place == last else (-6, 0),
                textcoords="offset points",
                ha="left" if place == last else "right",
                va="center",
                fontsize=8,
                bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.75},
                zorder=5,
            )
    plot.set(xlim=(-0.28, last + 0.24), ylim=(-0.05, 1.06), yticks=[])
    plot.set_xticks(range(len(found)), [axis.label for axis in found], fontsize=10)
    plot.xaxis.tick_top()
    plot.tick_params(length=0)
    plot.spines[:].set_visible(False)
    extend = "neither" if not tenth else "max" if aim.least else "min"
    figure.colorbar(shades, ax=plot, label=_label(aim), pad=0.02, extend=extend)
    name = f"; red: the best, {_best(tasks, aim)}" if tasks.best in rows else ""
    figure.suptitle(f"{tasks.job}: {len(rows)} tasks{name}", fontsize=11)
    save(figure, output)


def _best(tasks: Tasks, aim: Objective) -> str:
    assert tasks.best is not None
    return f"{tasks.best.name} ({figures(tasks.best, [aim.metric])})"


def _smooth(places: list[float]) -> list[tuple[float, float]]:
    """A line through (0, places[0]), (1, places[1]), …, level at each: an eye can follow it."""
    found = [(0.0, places[0])]
    for n, (start, end) in enumerate(pairwise(places)):
        for step in range(1, CURVED + 1):
            part = step / CURVED
            found.append((n + part, start + (end - start) * part * part * (3 - 2 * part)))
    return found


def _axes(figure: Figure, tasks: Tasks, across: str, up: str) -> Any:
    plot = figure.add_subplot()
    plot.set(xlabel=across, ylabel=up)
    plot.set_title(f"{tasks.job}: {len(tasks.rows)} tasks", fontsize=11)
    plot.grid(alpha=0.3)
    plot.spines[["top", "right"]].set_visible(False)
    return plot


def _label(aim: Objective) -> str:
    return f"{aim.metric} ({'less' if aim.least else 'more'} is better)"
