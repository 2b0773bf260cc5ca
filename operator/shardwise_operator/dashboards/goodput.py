"""Goodput as every dashboard has it: the productive part of jobs' time, and its colours."""

from __future__ import annotations

from shardwise_operator.dashboards.panels import thresholds

COLOURS = thresholds((None, "red"), (0.8, "yellow"), (0.95, "green"))


def ratio(selector: str) -> str:
    """Of all jobs that the selector has, together."""
    return (
        f'sum(shardwise_job_seconds_total{{{selector}, kind="productive"}})'
        f" / sum(shardwise_job_seconds_total{{{selector}}})"
    )


def ratio_by(labels: str, selector: str) -> str:
    """One for each value of these labels, where there was any time."""
    return (
        f'sum by ({labels}) (shardwise_job_seconds_total{{{selector}, kind="productive"}})'
        f" / (sum by ({labels}) (shardwise_job_seconds_total{{{selector}}}) > 0)"
    )
