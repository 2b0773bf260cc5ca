"""`shardwise plot`: training curves of local runs, on the terminal or as a picture."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardwise.cli.errors import CliError

if TYPE_CHECKING:
    from shardwise.cli.view.style import Paint

HISTORY = "history.csv"
STEP = "step"
HEIGHT = 16
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Course:
    """One column of one run's history."""

    label: str
    points: list[tuple[float, float]]
    """(step, value)"""


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-m",
    "--metric",
    "metrics",
    multiple=True,
    help="Column of history.csv; may be given again. Default: loss and evaluationLoss.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a PNG here instead.")
@click.option("--log", "logarithmic", is_flag=True, help="A logarithmic axis.")
def plot(
    folders: tuple[Path, ...], metrics: tuple[str, ...], output: Path | None, logarithmic: bool
) -> None:
    """Training curves of the runs in FOLDERS (what `shardwise run` wrote), in one picture.

    On the terminal, or with --output as a PNG, which needs matplotlib.
    """
    courses = [course for folder in folders for course in read(folder, metrics, len(folders) > 1)]
    if logarithmic:
        courses = [Course(c.label, [p for p in c.points if p[1] > 0]) for c in courses]
    if not any(course.points for course in courses):
        raise CliError("nothing to draw: no column has a value; see --metric")
    if output is not None:
        _picture(courses, output, logarithmic)
        click.echo(str(output))
        return
    from shardwise.cli.terminal import paint_for, show, width

    show(drawn(courses, min(width(), WIDTH), HEIGHT, logarithmic, paint_for(sys.stdout)))


def read(folder: Path, metrics: Sequence[str], many: bool) -> list[Course]:
    """The courses of a run; its folder stands in their labels where there are `many`."""
    file = folder / HISTORY if folder.is_dir() else folder
    try:
        with file.open(newline="") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise CliError(f"{file}: {told}; name a folder that `shardwise run` wrote") from error
    if not rows or STEP not in rows[0]:
        raise CliError(f"{file}: is no history of a run: it has no column {STEP!r} with a row")
    columns = [str(key) for key in rows[0] if key not in (STEP, None)]
    wanted = list(metrics) or [key for key in ("loss", "evaluationLoss") if key in columns]
    for metric in wanted:
        if metric not in columns:
            raise CliError(
                f"--metric: {file} has no column {metric!r}; it has {', '.join(columns)}"
            )
    return [
        Course(f"{folder.name}: {metric}" if many else metric, _points(rows, metric))
        for metric in wanted
    ]


def _points(rows: Sequence[dict[str, Any]], metric: str) -> list[tuple[float, float]]:
    points = []
    for row in rows:
        try:
            points.append((float(row[STEP]), float(row[metric])))
        except (TypeError, ValueError):
            continue  # An evaluation stands only in some rows.
    return points


def drawn(
    courses: Sequence[Course], width: int, height: int, logarithmic: bool, paint: Paint
) -> list[str]:
    """The curves out of characters, with their axes."""
    from shardwise.cli.view.bars import curve

    shown = [
        [(x, math.log10(y) if logarithmic else y) for x, y in course.points] for course in courses
    ]
    finite = [p for points in shown for p in points if all(map(math.isfinite, p))]
    if not finite:
        return ["no finite value"]
    values, steps = [y for _, y in finite], [x for x, _ in finite]
    marks = [
        f"{10**value if logarithmic else value:.4g}"
        for value in (max(values), (max(values) + min(values)) / 2, min(values))
    ]
    margin = max(map(len, marks))
    at = {0: marks[0], height // 2: marks[1], height - 1: marks[2]}
    lines = []
    for number, row in enumerate(curve(shown, max(10, width - margin - 2), height)):
        body = "".join(paint.rank(sign, n) if n >= 0 else sign for sign, n in row)
        lines.append(f"{at.get(number, '').rjust(margin)} ┤{body.rstrip()}")
    left, right = f"{min(steps):.0f}", f"step {max(steps):.0f}"
    gap = max(1, width - margin - 2 - len(left) - len(right))
    lines.append(f"{' ' * margin}  {left}{' ' * gap}{right}")
    for number, course in enumerate(courses):
        last = f" {course.points[-1][1]:.4g}" if course.points else " (no values)"
        lines.append(f"{' ' * margin}  {paint.rank('━━', number)} {course.label}{last}")
    return lines


def _picture(courses: Sequence[Course], output: Path, logarithmic: bool) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CliError(
            "--output: a PNG needs matplotlib: pip install 'shardwise[trainer]', or leave "
            "--output out to draw on the terminal"
        ) from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="step", yscale="log" if logarithmic else "linear")
    for course in courses:
        few = len(course.points) < 100
        steps, values = [x for x, _ in course.points], [y for _, y in course.points]
        axes.plot(steps, values, lw=1, marker="o" if few else "", ms=3, label=course.label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    FigureCanvasAgg(figure)
    try:
        figure.savefig(output, format="png", dpi=150)
    except OSError as error:
        raise CliError(f"--output: {output}: {error.strerror}") from error
