"""`shardwise plot --parallel-coordinates | --pareto | --history`: many tasks in one picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shardwise.cli.errors import CliError
from shardwise.cli.options import Place, find_job
from shardwise.cli.tasks import PARTIAL, local_folder, of_cluster, read_folder

if TYPE_CHECKING:
    from shardwise.cli.view.rows import Objective, Tasks

PARALLEL, PARETO, HISTORY = "parallel-coordinates", "pareto", "history"
HEIGHT, WIDTH = 18, 110


def plot_tasks(
    sources: Sequence[str],
    kind: str,
    metrics: Sequence[str],
    output: Path | None,
    logarithmic: bool,
    place: Place,
) -> None:
    """Draw the tasks of the one source on the terminal, or into the file `output`.

    Raises:
        CliError: there are several sources, no tasks, or not the figures that the plot needs.
    """
    if len(sources) != 1:
        raise CliError(f"--{kind}: give one folder or job, not {len(sources)}")
    if logarithmic and (kind == PARALLEL or output is None):
        raise CliError(f"--log: not together with --{kind} on the terminal, or of parallel axes")
    tasks = _tasks(sources[0], place)
    aims = _aims(tasks, metrics, kind)
    _check(tasks, aims, kind)
    if output is not None:
        from shardwise.cli import pictures

        if kind == PARALLEL:
            pictures.parallel(tasks, aims[0], output)
        elif kind == PARETO:
            pictures.pareto(tasks, aims[0], aims[1], output, logarithmic)
        else:
            pictures.history(tasks, aims[0], output, logarithmic)
        click.echo(str(output))
    else:
        _draw(tasks, aims, kind)
    if len(tasks.rows) < tasks.total:
        click.echo(f"{len(tasks.rows)} of {tasks.total} tasks: {PARTIAL}", err=True)


def _draw(tasks: Tasks, aims: Sequence[Objective], kind: str) -> None:
    from shardwise.cli.terminal import paint_for, show, width
    from shardwise.cli.view import charts

    paint, wide = paint_for(sys.stdout), min(width(), WIDTH)
    if kind == PARALLEL:
        show(charts.parallel(tasks, aims[0], wide, HEIGHT, paint))
    elif kind == PARETO:
        show(charts.pareto(tasks, aims[0], aims[1], wide, HEIGHT, paint))
    else:
        show(charts.history(tasks, aims[0], wide, HEIGHT, paint))


def _tasks(source: str, place: Place) -> Tasks:
    folder = local_folder(source)
    if folder is not None:
        return read_folder(folder)
    return of_cluster(find_job(place.connect(), source))


def _aims(tasks: Tasks, metrics: Sequence[str], kind: str) -> list[Objective]:
    """The objectives to draw: those named by --metric, or the first ones."""
    known = {each.metric: each for each in tasks.objectives}
    for metric in metrics:
        if metric not in known:
            there = ", ".join(known) or "none: its spec.tasks has no objectives"
            raise CliError(f"--metric: {metric!r} is no objective of {tasks.job}; it has {there}")
    wanted, needed = [known[each] for each in metrics], 2 if kind == PARETO else 1
    wanted += [each for each in tasks.objectives if each not in wanted]
    if len(wanted) < needed:
        raise CliError(
            f"--{kind}: needs {needed} objective{'s' * (needed > 1)}, and {tasks.job} has "
            f"{len(known)} ({', '.join(known) or 'none'}); see spec.tasks.objectives"
        )
    return wanted[:needed]


def _check(tasks: Tasks, aims: Sequence[Objective], kind: str) -> None:
    from shardwise.cli.view.charts import both
    from shardwise.cli.view.rows import in_order

    found = both(tasks, aims[0], aims[1]) if kind == PARETO else in_order(tasks, aims[0])
    if not found:
        raise CliError(
            f"nothing to draw: no task of {tasks.job} has ended with a figure for "
            f"{' and '.join(each.metric for each in aims)}"
        )
