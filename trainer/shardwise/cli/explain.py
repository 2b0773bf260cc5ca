"""`shardwise explain`: what a job waits for and why, in the words of the operator's decision."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from shardwise.cli.options import cluster_options, job_argument

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster


@click.command()
@job_argument
@cluster_options
@click.pass_context
def explain(context: click.Context, cluster: Cluster, job: str) -> None:
    """What JOB waits for and why, or why it failed, and what to do about it."""
    from shardwise.cli.describe import look
    from shardwise.cli.terminal import paint_for, show, width
    from shardwise.cli.view.explain import explain as lines_of

    sight = look(cluster, job)
    assert sight.job is not None
    show(
        lines_of(
            sight.job,
            sight.own_pods(),
            sight.own_events(),
            datetime.now(UTC),
            width=width(),
            paint=paint_for(sys.stdout),
            program=context.find_root().info_name or "shardwise",
        )
    )
