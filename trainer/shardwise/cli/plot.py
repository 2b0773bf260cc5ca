"""`shardwise plot`: curves of local runs, and many tasks, on the terminal or as a picture."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardwise.cli.errors import CliError
from shardwise.cli.options import Place, place_options

if TYPE_CHECKING:
    from shardwise.cli.view.style import Paint

HISTORY = "history.csv"
LARGEST_HISTORY = 1 << 30
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
@click.argument("sources", metavar="FOLDER|JOB...", nargs=-1, required=True)
@click.option(
    "--parallel-coordinates",
    "kind",
    flag_value="parallel-coordinates",
    help="Of many tasks: a line for each through its parameters and its figures.",
)
@click.option(
    "--pareto", "kind", flag_value="pareto", help="Of many tasks: two objectives and their front."
)
@click.option(
    "--history",
    "kind",
    flag_value="history",
    help="Of many tasks: the objective in the order of their ends, and the best so far.",
)
@click.option(
    "-m",
    "--metric",
    "metrics",
    multiple=True,
    help="Column of history.csv, or one of the tasks' objectives; may be given again. Default: "
    "loss and evaluationLoss; the first objectives.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a PNG here instead.")
@click.option("--log", "logarithmic", is_flag=True, help="A logarithmic axis.")
@place_options
def plot(
    sources: tuple[str, ...],
    kind: str | None,
    metrics: tuple[str, ...],
    output: Path | None,
    logarithmic: bool,
    place: Place,
) -> None:
    """Training curves of the runs in FOLDERS (what `shardwise run` wrote), in one picture; or with
    one of --parallel-coordinates, --pareto and --history, the tasks of one FOLDER or JOB.

    On the terminal, or with --output as a PNG, which needs matplotlib.
    """
    if kind is not None:
        from shardwise.cli.plot_tasks import plot_tasks

        plot_tasks(sources, kind, metrics, output, logarithmic, place)
        return
    folders = list(map(Path, sources))
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
    if (folder / "tasks").is_dir() and not file.exists():
        raise CliError(
            f"{folder}: has many tasks: give --parallel-coordinates, --pareto or --history, or "
            f"name one of the folders in {folder / 'tasks'}"
        )
    from shardwise.regular import read_regular

    try:
        text = read_regular(file, LARGEST_HISTORY).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, ValueError, csv.Error) as error:
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
    from shardwise.cli.pictures import new_figure, save

    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    axes.set(xlabel="step", yscale="log" if logarithmic else "linear")
    for course in courses:
        few = len(course.points) < 100
        steps, values = [x for x, _ in course.points], [y for _, y in course.points]
        axes.plot(steps, values, lw=1, marker="o" if few else "", ms=3, label=course.label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save(figure, output)
