"""Figures that more than one dashboard has, for the jobs that a selector of labels chooses."""

from __future__ import annotations

from shardwise_operator.dashboards.panels import thresholds

GOODPUT = thresholds((None, "red"), (0.8, "yellow"), (0.95, "green"))
"""Its colours."""


def goodput(selector: str) -> str:
    """The productive part of the time of all of the jobs together."""
    return (
        f'sum(shardwise_job_seconds_total{{{selector}, kind="productive"}})'
        f" / sum(shardwise_job_seconds_total{{{selector}}})"
    )


def goodput_by(labels: str, selector: str) -> str:
    """One for each value of these labels, where there was any time."""
    return (
        f'sum by ({labels}) (shardwise_job_seconds_total{{{selector}, kind="productive"}})'
        f" / (sum by ({labels}) (shardwise_job_seconds_total{{{selector}}}) > 0)"
    )


def work_at_risk(selector: str) -> str:
    """Seconds of work since each job's newest checkpoint."""
    return (
        f"(shardwise_job_step{{{selector}}} - shardwise_job_checkpoint_step{{{selector}}})"
        f" * shardwise_job_step_seconds{{{selector}}}"
    )
