"""The `shardwise` command.

Exit codes: 0 the job succeeded; 1 it failed; 2 the command line or the manifest is wrong;
130 it was interrupted.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from shardwise import __version__
from shardwise.api.validation import InvalidJob
from shardwise.cli.manifest import ManifestError, read_job

SUCCEEDED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shardwise")
def main() -> None:
    """Parallel optimization jobs: the same weights on any number of workers."""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), help="Processes; default spec.workers.replicas.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder; default out/NAME.")
@click.pass_context
def run(context: click.Context, file: Path, workers: int | None, output: Path | None) -> None:
    """Run the job in FILE with processes of this machine, no cluster needed.

    Writes weights.safetensors, optimizer.safetensors, result.json, history.csv and curve.png.
    Exits with 0 when the job succeeded, 1 when it failed, 2 when the manifest or the command line
    is wrong, 130 when interrupted.
    """
    from shardwise.local.display import describe, display
    from shardwise.local.run import run as run_locally

    try:
        job = read_job(file)
    except (ManifestError, InvalidJob) as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(USAGE)
    name, count = job.metadata.name, workers or job.spec.workers.replicas
    if count > job.spec.trainer.shards:
        click.echo(
            f"Error: --workers: {count} is more than spec.trainer.shards "
            f"({job.spec.trainer.shards}); lower it, or raise shards",
            err=True,
        )
        context.exit(USAGE)
    directory = (output or Path("out") / name).resolve()
    with display(name) as show:
        ended = asyncio.run(run_locally(job, workers=count, output=directory, show=show))
    if ended.interrupted:
        click.echo(f"{name}: interrupted at {describe(ended.report)}", err=True)
        context.exit(INTERRUPTED)
    if ended.failure is not None:
        if ended.failure.detail:
            click.echo(ended.failure.detail.rstrip(), err=True)
        click.echo(f"{name}: failed: {ended.failure.reason}: {ended.failure.message}", err=True)
        context.exit(FAILED)
    _print_result(name, directory)


def _print_result(name: str, directory: Path) -> None:
    result = json.loads((directory / "result.json").read_text())
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in result["metrics"].items())
    click.echo(
        f"{name}: succeeded: {result['steps']} steps in {result['seconds']:.1f} s, {metrics}\n"
        f"weightsSha256 {result['weightsSha256']}\n"
        f"{directory}"
    )


if __name__ == "__main__":
    main()
