"""The panels on recoveries that one job and all jobs have alike."""

from __future__ import annotations

from shardwise_operator.dashboards.panels import Panel, Query, graph, heatmap

NONE = "No worker was lost"


def by_cause(count: str) -> Panel:
    """How many there were, by cause."""
    return graph(
        "Recoveries by cause",
        "Killed: the process died. Hung: it stood still. Unreachable: it did not answer. "
        "Broken: a connection broke and all live. Preempted: it was asked to leave.",
        Query(expr=f"sum by (cause) ({count})", legend="{{cause}}"),
        unit="short",
        stacked=True,
        width=8,
    )


def how_long(selector: str, description: str) -> Panel:
    """How many took how long."""
    return heatmap(
        "How long recoveries take",
        description,
        Query(
            expr=f"sum by (le) (shardwise_job_recovery_seconds_bucket{{{selector}}})",
            legend="{{le}}",
            heatmap=True,
        ),
        unit="short",
        axis_unit="s",
        width=8,
        empty_means=NONE,
    )
