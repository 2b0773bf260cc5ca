"""`shardwise tasks`: the tasks of a job in a cluster, or of a local run's output folder."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shardwise.cli import exitcodes
from shardwise.cli.errors import CliError
from shardwise.cli.options import Place, complete_jobs, find_job, place_options, timeout_option
from shardwise.cli.output import output_option

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster
    from shardwise.cli.view.rows import Row, Tasks
    from shardwise.cli.view.style import Paint

RESULT, FOLDER = "result.json", "tasks"
PARTIAL = "the status holds no more; tasks.csv in the output folder has them all"


@click.command()
@click.argument("source", metavar="JOB|FOLDER", shell_complete=complete_jobs)
@click.option(
    "--sort",
    "column",
    metavar="NAME",
    help="A parameter, a metric, name, state, steps, seconds, workers or ended. Default: the best "
    "task by the objectives first.",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("-w", "--watch", "follow", is_flag=True, help="Go on until the job ends.")
@timeout_option("watching")
@output_option("wide", "json", "yaml", "name", "csv")
@place_options
@click.pass_context
def tasks(
    context: click.Context,
    source: str,
    column: str | None,
    reverse: bool,
    follow: bool,
    timeout: float | None,
    output: str | None,
    place: Place,
) -> None:
    """The tasks of JOB in a cluster, or of the run that wrote FOLDER: parameters, figures, state.

    A folder has all tasks. A job's status has the best one, the Pareto front, those under way and
    those that failed or ended last.
    """
    folder = local_folder(source)
    if follow and output not in (None, "wide"):
        raise CliError(f"--watch: cannot be given together with -o {output}")
    if folder is not None:
        if follow:
            raise CliError(
                f"--watch: {folder} is a folder; what `shardwise run` does is shown by itself"
            )
        print_tasks(read_folder(folder), column, reverse, output)
        return
    cluster = place.connect()
    job = find_job(cluster, source)
    if follow:
        context.exit(_follow(cluster, source, column, reverse, output == "wide", timeout))
    print_tasks(of_cluster(job), column, reverse, output)


def local_folder(source: str) -> Path | None:
    """The folder of a run, or its result.json; None: it is a job's name."""
    path = Path(source)
    if path.is_file() or "/" in source or source.startswith("."):
        return path
    there = path.is_dir() and ((path / RESULT).exists() or (path / FOLDER).is_dir())
    return path if there else None


def read_folder(path: Path) -> Tasks:
    """The tasks that a run has written, also one that did not come to its end.

    Raises:
        CliError: there are none, or the file is broken.
    """
    file = path / RESULT if path.is_dir() else path
    if file.exists() or not path.is_dir():
        result = _json(file)
        if not isinstance(result.get("tasks"), list):
            raise CliError(
                f"{file}: is of one training, not of many tasks; `shardwise plot {path}` draws it"
            )
        return _told(file, result)
    found = [_json(each) for each in sorted(path.glob(f"{FOLDER}/*/{RESULT}"))]
    if not found:
        raise CliError(f"{path}: has no {RESULT}; name a folder that `shardwise run` wrote")
    click.echo(
        f"Warning: {path}: its run has not come to its end: only the tasks that succeeded are told "
        "of",
        err=True,
    )
    return _told(path, {"job": path.name, "tasks": list(map(_one, found))})


def _told(file: Path, result: Mapping[str, Any]) -> Tasks:
    from shardwise.cli.view.rows import of_result

    try:
        return of_result(result)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CliError(f"{file}: is no result of a run: {error}") from error


def _one(written: Mapping[str, Any]) -> dict[str, Any]:
    """A task's own result as a row of the job's."""
    return {
        "name": Path(str(written.get("path"))).name,
        "state": "Succeeded",
        **{key: written.get(key) for key in ("parameters", "metrics", "weightsSha256")},
        **{key: written.get(key) for key in ("steps", "seconds", "workers")},
    }


def _json(file: Path) -> dict[str, Any]:
    from shardwise.regular import UnsafeFileError, read_json

    try:
        return read_json(file)
    except UnsafeFileError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(
            f"{file}: {error.strerror}; name a folder that `shardwise run` wrote"
        ) from error


def of_cluster(job: Mapping[str, Any]) -> Tasks:
    """The tasks that a job's status tells of.

    Raises:
        CliError: the job has none.
    """
    from shardwise.cli.view.fields import name, pick
    from shardwise.cli.view.rows import Tasks, objectives, of_job

    found = of_job(job)
    if found is not None:
        return found
    asked = pick(job, "spec.tasks")
    if asked is None:
        raise CliError(
            f"{name(job)} has no spec.tasks: it is one training; see `shardwise describe`"
        )
    aims = objectives(asked.get("objectives") or ())
    return Tasks(job=name(job), rows=(), counts={}, total=0, objectives=aims)


def chosen(tasks: Tasks, column: str | None, reverse: bool) -> list[Row]:
    """The rows in the order that is asked for."""
    from shardwise.cli.view.rows import columns, ranked, sorted_by

    try:
        rows = ranked(tasks) if column is None else sorted_by(tasks, column)
    except KeyError as error:
        raise CliError(
            f"--sort: the tasks have no {column!r}; they have {', '.join(columns(tasks))}"
        ) from error
    return rows[::-1] if reverse else rows


def print_tasks(tasks: Tasks, column: str | None, reverse: bool, output: str | None) -> None:
    from shardwise.cli.terminal import paint_for, show

    rows = chosen(tasks, column, reverse)
    if output == "name":
        show([row.name for row in rows])
    elif output == "csv":
        click.echo(_csv(tasks, rows), nl=False)
    elif output in ("json", "yaml"):
        click.echo(_document(tasks, rows, output), nl=False)
    else:
        show(_lines(tasks, rows, output == "wide", paint_for(sys.stdout)))
    if len(tasks.rows) < tasks.total:
        click.echo(f"{len(tasks.rows)} of {tasks.total} tasks: {PARTIAL}", err=True)


def _lines(tasks: Tasks, rows: Sequence[Row], wide: bool, paint: Paint) -> list[str]:
    from shardwise.cli.view.tasks import lines_of, summary

    table = ["", *lines_of(tasks, rows, paint, wide=wide)] if rows else []
    return [*summary(tasks, paint), *table]


def _csv(tasks: Tasks, rows: Sequence[Row]) -> str:
    """In the columns of tasks.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last = ("steps", "seconds", "workers", "ended", "weightsSha256", "reason", "message")
    writer.writerow(["name", "state", *tasks.parameters, *tasks.metrics, *last])
    for row in rows:
        found = _as_json(row)
        writer.writerow(
            [row.name, row.state]
            + [row.parameters.get(key, "") for key in tasks.parameters]
            + [row.metrics.get(key, "") for key in tasks.metrics]
            + [found[key] for key in last]
        )
    return text.getvalue()


def _document(tasks: Tasks, rows: Sequence[Row], form: str) -> str:
    content = {
        "job": tasks.job,
        "total": tasks.total,
        "counts": dict(tasks.counts),
        "objectives": [
            {"metric": each.metric, "direction": "Minimize" if each.least else "Maximize"}
            for each in tasks.objectives
        ],
        "best": None if tasks.best is None else tasks.best.name,
        "pareto": list(tasks.pareto),
        "tasks": [_as_json(row) for row in rows],
    }
    if form == "json":
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return text


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "state": row.state,
        "parameters": dict(row.parameters),
        "metrics": dict(row.metrics),
        "weightsSha256": row.weights,
        "steps": int(row.step),
        "seconds": row.seconds,
        "workers": int(row.workers or 0),
        "ended": int(row.ended),
        "reason": row.reason,
        "message": row.message,
    }


def _follow(
    cluster: Cluster,
    name: str,
    column: str | None,
    reverse: bool,
    wide: bool,
    timeout: float | None,
) -> int:
    """Shows the tasks until the job ends; the exit code."""
    import time

    from shardwise.cli.follow import Follower, Source
    from shardwise.cli.names import PLURAL
    from shardwise.cli.terminal import Screen, live, paint_for, show
    from shardwise.cli.view.fields import state
    from shardwise.cli.view.rows import of_job
    from shardwise.cli.view.sight import Sight
    from shardwise.cli.view.tasks import counts_words, news
    from shardwise.cli.watch import over, take, waiting

    here = cluster.namespace
    follower = Follower(cluster, [Source("job", PLURAL, here, fields=f"metadata.name={name}")])
    sight, told = Sight(), None
    paint = paint_for(sys.stdout)
    screen = Screen(sys.stdout) if live(sys.stdout) else None
    end = time.monotonic() + timeout if timeout else None
    try:
        while True:
            for item in waiting(follower.news, end):
                take(sight, item)
                found = of_job(sight.job) if sight.job else None
                if screen is None and found is not None:
                    show(news(told, found))
                    told = found
            if screen is not None and sight.job is not None:
                found = of_cluster(sight.job)
                screen.draw(_lines(found, chosen(found, column, reverse), wide, paint))
            if over(sight):
                break
            if end is not None and time.monotonic() >= end:
                click.echo(f"Error: {name} has not ended within {timeout:.0f} s", err=True)
                return exitcodes.TIMED_OUT
    finally:
        follower.close()
        if screen is not None:
            screen.close()
    if sight.deleted or sight.job is None:
        click.echo(f"Error: {name} was deleted", err=True)
        return exitcodes.FAILED
    if screen is None and told is not None:
        show([f"{name}: {state(sight.job)}: {counts_words(told, paint)}"])
    return exitcodes.SUCCEEDED if state(sight.job) == "Succeeded" else exitcodes.FAILED
