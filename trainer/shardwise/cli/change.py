"""`shardwise scale`, `suspend`, `resume` and `delete`: small changes to jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardwise.cli.errors import ApiError, CliError
from shardwise.cli.names import PLURAL
from shardwise.cli.options import cluster_options, find_job, job_argument, jobs_argument

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster


@click.command()
@job_argument
@click.argument("workers", type=click.IntRange(1))
@cluster_options
def scale(cluster: Cluster, job: str, workers: int) -> None:
    """Let JOB train with so many WORKERS. Its result stays the same, byte for byte."""
    found = find_job(cluster, job)
    _refuse_ended(found)
    least, most, why = bounds(found)
    if not least <= workers <= most:
        raise CliError(
            f"WORKERS: {workers} is not between spec.workers.min ({least}) and {why}; change "
            "that field first, or choose a number between them"
        )
    now = int((found["spec"].get("workers") or {}).get("replicas") or 1)
    cluster.patch(PLURAL, job, {"spec": {"replicas": workers}}, subresource="scale")
    click.echo(
        f"{job}: {now} workers as before" if now == workers else f"{job}: {now} → {workers} workers"
    )
    if found["spec"].get("suspend"):
        click.echo(f"{job} is suspended: that holds from when it is resumed", err=True)


def bounds(job: dict[str, Any]) -> tuple[int, int, str]:
    """The fewest and the most workers that `scale` may ask for, and what the most comes from.

    An absent `max` is the number of replicas where the operator fills it in, but nothing that
    scaling has to respect: it moves with them. The shards are the bound then.
    """
    spec = job["spec"]
    workers = spec.get("workers") or {}
    least, shards = int(workers.get("min") or 1), int(spec["trainer"]["shards"])
    if workers.get("max") is not None:
        most = int(workers["max"])
        return least, most, f"spec.workers.max ({most})"
    return least, shards, f"spec.trainer.shards ({shards})"


@click.command()
@jobs_argument(required=True)
@cluster_options
def suspend(cluster: Cluster, jobs: tuple[str, ...]) -> None:
    """Stop the workers of JOBS. With spec.checkpoint they write one first, and `resume` goes on
    from it; without, it starts from the beginning.
    """
    for name in jobs:
        found = find_job(cluster, name)
        _refuse_ended(found)
        if found["spec"].get("suspend"):
            click.echo(f"{name}: suspended already")
            continue
        cluster.patch(PLURAL, name, {"spec": {"suspend": True}})
        click.echo(f"{name}: suspended")
        if not found["spec"].get("checkpoint"):
            click.echo(
                f"Warning: {name} has no spec.checkpoint: when resumed it starts from step 0",
                err=True,
            )


@click.command()
@jobs_argument(required=True)
@cluster_options
def resume(cluster: Cluster, jobs: tuple[str, ...]) -> None:
    """Let suspended JOBS go on."""
    for name in jobs:
        found = find_job(cluster, name)
        _refuse_ended(found)
        if not found["spec"].get("suspend"):
            click.echo(f"{name}: is not suspended")
            continue
        cluster.patch(PLURAL, name, {"spec": {"suspend": False}})
        click.echo(f"{name}: resumed")


@click.command()
@jobs_argument(required=True)
@click.option("--ignore-not-found", is_flag=True, help="Say nothing of jobs that are not there.")
@cluster_options
def delete(cluster: Cluster, jobs: tuple[str, ...], ignore_not_found: bool) -> None:
    """Delete JOBS; their pods go with them. What they wrote on volumes stays."""
    for name in jobs:
        try:
            cluster.delete(PLURAL, name)
        except ApiError as error:
            if error.status != 404:
                raise
            if not ignore_not_found:
                find_job(cluster, name)
                raise
        else:
            click.echo(f"{name}: deleted")


def _refuse_ended(job: dict[str, Any]) -> None:
    from shardwise.cli.view.fields import ended, name, state

    if ended(job):
        raise CliError(f"{name(job)} has ended ({state(job)}): there is nothing left to change")
