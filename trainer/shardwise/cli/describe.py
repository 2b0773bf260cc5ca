"""`shardwise describe`: all that is known of a job."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from shardwise.cli.names import events_of, pods_of
from shardwise.cli.options import cluster_options, find_job, job_argument

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster
    from shardwise.cli.view.sight import Sight


@click.command()
@job_argument
@cluster_options
def describe(cluster: Cluster, job: str) -> None:
    """All that is known of JOB: state, progress, workers, recoveries, where the time went,
    checkpoint, result, the last failure with the end of its log, conditions, events.
    """
    from shardwise.cli.terminal import paint_for, show
    from shardwise.cli.view.describe import describe as lines_of

    sight = look(cluster, job)
    paint, now = paint_for(sys.stdout), datetime.now(UTC)
    assert sight.job is not None
    show(lines_of(sight.job, sight.own_pods(), sight.own_events(), now, paint))


def look(cluster: Cluster, name: str) -> Sight:
    """The job, its pods and its Events; those two are left out where the user may not see them."""
    from shardwise.cli.view.sight import Sight

    sight = Sight()
    sight.take_job("ADDED", find_job(cluster, name))
    for pod in _allowed(cluster, "pods", selector=pods_of(name)):
        sight.take_pod("ADDED", pod)
    for event in _allowed(cluster, "events", fields=events_of(name)):
        sight.take_event("ADDED", event)
    return sight


def _allowed(
    cluster: Cluster, kind: str, *, selector: str = "", fields: str = ""
) -> list[dict[str, Any]]:
    from shardwise.cli.errors import ApiError

    try:
        found: list[dict[str, Any]] = cluster.list(kind, selector=selector, fields=fields)["items"]
    except ApiError as error:
        if error.status != 403:
            raise
        click.echo(f"Warning: {kind} are left out: {error.words}", err=True)
        return []
    return found
