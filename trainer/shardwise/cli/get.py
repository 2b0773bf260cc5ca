"""`shardwise get`: jobs, in the columns that the cluster's CRD defines for `kubectl get`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from shardwise.cli.errors import CliError
from shardwise.cli.names import API_VERSION, KIND, PLURAL
from shardwise.cli.options import cluster_options, find_job, jobs_argument
from shardwise.cli.output import as_text, output_option

if TYPE_CHECKING:
    from shardwise.cli.cluster import Cluster
    from shardwise.cli.view.style import Paint

OF_TASKS = frozenset({"Tasks", "Best"})
"""Columns that are empty for most jobs, and the news for those that have them."""


@click.command()
@jobs_argument()
@click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
@click.option("-l", "--selector", default="", help="Labels that the jobs must have: key=value,…")
@output_option("wide", "json", "yaml", "name")
@cluster_options
def get(
    cluster: Cluster,
    jobs: tuple[str, ...],
    all_namespaces: bool,
    selector: str,
    output: str | None,
) -> None:
    """List the jobs of a namespace, or those named.

    The columns are made by the API server from the CRD: the same as those of `kubectl get`, and
    with -o wide those of `kubectl get -o wide`. Where some job has many tasks, those of its tasks
    are shown too.
    """
    if jobs and (all_namespaces or selector):
        raise CliError("JOBS cannot be given together with --all-namespaces or --selector")
    from shardwise.cli.terminal import paint_for, show

    if output in ("json", "yaml", "name"):
        found = _objects(cluster, jobs, all_namespaces, selector)
        click.echo(as_text(found, output, single=len(jobs) == 1), nl=False)
        return
    if jobs:
        tables = []
        for name in jobs:
            find_job(cluster, name)  # Its error is the better one.
            tables.append(cluster.get(PLURAL, name, table=True))
        answer = {**tables[0], "rows": [row for found in tables for row in found["rows"]]}
    else:
        place = "" if all_namespaces else None
        answer = cluster.list(PLURAL, namespace=place, selector=selector, table=True)
    if not answer["rows"]:
        where = "" if all_namespaces else f" in namespace {cluster.namespace}"
        click.echo(f"No jobs found{where}.", err=True)
        return
    show(printed(answer, output == "wide", all_namespaces, paint_for(sys.stdout)))


def _objects(
    cluster: Cluster, jobs: tuple[str, ...], everywhere: bool, selector: str
) -> list[dict[str, Any]]:
    if jobs:
        return [find_job(cluster, name) for name in jobs]
    found = cluster.list(PLURAL, namespace="" if everywhere else None, selector=selector)["items"]
    # Items of a list lack what the list says of them all.
    return [{"apiVersion": API_VERSION, "kind": KIND, **item} for item in found]


def printed(answer: dict[str, Any], wide: bool, namespaces: bool, paint: Paint) -> list[str]:
    """The lines of a Table that the API server made."""
    from shardwise.cli.view.table import table

    definitions = answer["columnDefinitions"]
    shown = [
        place
        for place, definition in enumerate(definitions)
        if wide
        or not definition.get("priority")
        or (definition["name"] in OF_TASKS and any(row["cells"][place] for row in answer["rows"]))
    ]
    headings = [str(definitions[place]["name"]).upper() for place in shown]
    rows = [[_cell(row["cells"][place]) for place in shown] for row in answer["rows"]]
    if namespaces:
        headings.insert(0, "NAMESPACE")
        for cells, row in zip(rows, answer["rows"], strict=True):
            cells.insert(0, str(row["object"]["metadata"].get("namespace", "")))

    def style(heading: str, cell: str) -> str:
        bare = cell.rstrip()
        return paint.state(bare) + cell[len(bare) :] if heading == "STATE" else cell

    return table(headings, rows, style)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
