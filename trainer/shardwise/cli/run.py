"""`shardwise run`: a job with processes of this machine."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from shardwise.cli.errors import CliError
from shardwise.cli.exitcodes import FAILED, INTERRUPTED, USAGE


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), help="Processes; default spec.workers.replicas.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder; default out/NAME.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND:INDEX@STEP",
    help="Strike on purpose: kill:1@50, hang:2@120, partition:0@200, leave:1@260, "
    "crash-coordinator@300. May be given several times.",
)
@click.pass_context
def run(
    context: click.Context,
    file: Path,
    workers: int | None,
    output: Path | None,
    faults: tuple[str, ...],
) -> None:
    """Run the job in FILE with processes of this machine, no cluster needed.

    Writes weights.safetensors, optimizer.safetensors, result.json, history.csv and curve.png. Where
    the job has many tasks: tasks.csv, result.json, the best task's weights.safetensors, and a
    folder for each task below tasks; `shardwise tasks` and `shardwise plot` show them.

    Exits with 0 when the job succeeded, 1 when it failed, 2 when the manifest or the command line
    is wrong, 130 when interrupted.

    With --fault the run shows what a failure costs: the worker of that INDEX is killed, hangs, is
    cut off from the network or leaves when it comes to that STEP, and the weights come out the
    same.
    """
    from shardwise.api.validation import InvalidJob
    from shardwise.cli.display import display
    from shardwise.cli.manifest import ManifestError, read_job
    from shardwise.cli.source import entrypoint_errors
    from shardwise.local.display import describe
    from shardwise.local.run import Setting
    from shardwise.local.run import run as run_locally
    from shardwise.worker.faults import FaultError, parse_fault

    try:
        job = read_job(file)
        if mistakes := entrypoint_errors(job):
            raise InvalidJob(mistakes)
    except (ManifestError, InvalidJob) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(USAGE)
    name, count = job.metadata.name, workers or job.spec.workers.replicas
    if job.spec.tasks is None and count > job.spec.trainer.shards:
        click.echo(
            f"Error: --workers: {count} is more than spec.trainer.shards "
            f"({job.spec.trainer.shards}); lower it, or raise shards",
            err=True,
        )
        context.exit(USAGE)
    group = 1 if job.spec.tasks is None else job.spec.tasks.workers_per_task
    if isinstance(group, int) and count < group:
        click.echo(
            f"Error: --workers: {count} is fewer than spec.tasks.workersPerTask ({group}), so no "
            "task could begin; raise it, or lower workersPerTask",
            err=True,
        )
        context.exit(USAGE)
    try:
        struck = [parse_fault(text) for text in faults]
    except FaultError as error:
        click.echo(f"Error: --fault: {error}", err=True)
        context.exit(USAGE)
    stranger = next((f for f in struck if f.index is not None and f.index >= count), None)
    if stranger is not None:
        click.echo(
            f"Error: --fault: {stranger} is for worker {stranger.index}, and the workers are 0 to "
            f"{count - 1}; name one of them, or raise --workers",
            err=True,
        )
        context.exit(USAGE)
    directory = (output or Path("out") / name).resolve()
    setting = Setting(
        workers=count,
        output=directory,
        faults=[str(fault) for fault in struck if fault.index is not None],
        crashes=[fault.step for fault in struck if fault.index is None],
    )
    tasks = None if job.spec.tasks is None else job.spec.tasks.to_json()
    began = time.monotonic()
    with display(name, tasks) as show:
        ended = asyncio.run(run_locally(job, setting, show))
    if ended.interrupted:
        click.echo(f"{name}: interrupted at {describe(ended.report)}", err=True)
        context.exit(INTERRUPTED)
    if ended.failure is not None:
        if ended.failure.detail:
            click.echo(ended.failure.detail.rstrip(), err=True)
        click.echo(f"{name}: failed: {ended.failure.reason}: {ended.failure.message}", err=True)
        context.exit(FAILED)
    if tasks is not None:
        _print_tasks(name, directory, time.monotonic() - began)
    else:
        _print_result(name, directory, ended.report.result or {})


def _print_tasks(name: str, directory: Path, seconds: float) -> None:
    from shardwise.cli.terminal import paint_for, show
    from shardwise.cli.view.rows import of_result
    from shardwise.cli.view.tasks import counts_words, ended_lines

    result = _result(directory)
    tasks, paint = of_result(result), paint_for(sys.stdout)
    told = counts_words(tasks, paint)
    click.echo(f"{name}: succeeded: {told}, {result['steps']:,} steps in {seconds:.1f} s")
    show([*ended_lines(tasks, paint), str(directory)])


def _print_result(name: str, directory: Path, told: Mapping[str, Any]) -> None:
    from shardwise.cli.terminal import show
    from shardwise.cli.view.describe import compressed

    result = _result(directory)
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in result["metrics"].items())
    click.echo(
        f"{name}: succeeded: {result['steps']} steps in {result['seconds']:.1f} s, {metrics}\n"
        f"weightsSha256 {result['weightsSha256']}"
    )
    show([*compressed({"status": told}), str(directory)])


def _result(directory: Path) -> dict[str, Any]:
    from shardwise.regular import UnsafeFileError, read_json

    try:
        return read_json(directory / "result.json")
    except (OSError, UnsafeFileError) as error:
        raise CliError(f"{directory / 'result.json'}: {error}; it was changed meanwhile") from error
