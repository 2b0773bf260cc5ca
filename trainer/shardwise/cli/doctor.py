"""`shardwise doctor`: whether everything that a job needs is there, and what to do where not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from shardwise.cli import exitcodes
from shardwise.cli.errors import ApiError
from shardwise.cli.options import Place, place_options
from shardwise.cli.output import output_option

if TYPE_CHECKING:
    from shardwise.cli.checks import Check
    from shardwise.cli.cluster import Cluster
    from shardwise.cli.view.style import Paint

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@click.command()
@output_option("json")
@place_options
@click.pass_context
def doctor(context: click.Context, place: Place, output: str | None) -> None:
    """Check the cluster, the CRD, your rights, the operator, its images and their versions.

    A line for each check: ok, a warning, or a failure with its remedy. Exits with 1 when a check
    failed; warnings leave it at 0.
    """
    from shardwise.cli.terminal import paint_for

    paint = paint_for(sys.stdout)
    done: list[Check] = []
    for check in _checks(place):
        done.append(check)
        if output is None:  # At once: a server that does not answer takes its time.
            click.echo("\n".join(lines_of(check, paint)), color=paint.enabled or None)
    counts = {level: sum(check.level == level for check in done) for level in MARKS}
    if output is None:
        click.echo(f"\n{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    else:
        click.echo(json.dumps([check.to_json() for check in done], indent=2, ensure_ascii=False))
    context.exit(exitcodes.FAILED if counts["fail"] else exitcodes.SUCCEEDED)


def lines_of(check: Check, paint: Paint) -> list[str]:
    mark, colour = MARKS[check.level]
    head = f"{paint(mark, colour, 'bold')} {check.name:<12} {check.message}"
    return [head, *([f"  {'':<12} → {check.remedy}"] if check.remedy else [])]


def _checks(place: Place) -> Iterator[Check]:
    from shardwise.cli import checks
    from shardwise.cli.errors import CliError

    yield checks.client()
    try:
        cluster = place.connect()
        version = cluster.call("GET", "/version")
    except CliError as error:
        yield checks.Check("fail", "cluster", error.message)
        return
    yield checks.server(cluster, version)
    for look in checks.CHECKS:
        yield from _looked(look, cluster)


def _looked(look: Callable[[Cluster], list[Check]], cluster: Cluster) -> list[Check]:
    from shardwise.cli.checks import Check

    try:
        return look(cluster)
    except ApiError as error:
        return [Check("warn", look.__name__, f"could not be checked: {error.words}")]
