"""The job's time limits: how long it may take to start, may train, and may go without a step.

All count from times that are in the status, so a restart of the operator neither extends nor
shortens them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from shardwise.api import conditions as c
from shardwise.api.types import OptimizationJob
from shardwise_operator.decide.conditions import Conditions, condition_true_since
from shardwise_operator.observe import Observed, parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The limit that is in force now."""

    at: datetime
    reason: str
    message: str


def deadline(
    observed: Observed, job: OptimizationJob | None, conditions: Conditions
) -> Deadline | None:
    """The next deadline; None where none is set, or the spec cannot be read any more."""
    if job is None:
        return None
    status = observed.job.status
    running_since = conditions.true_since(c.RUNNING)
    if running_since is not None:
        return _active(status, job, running_since)
    begin = _startup_began(observed, conditions)
    seconds = job.spec.startup_deadline_seconds
    if seconds is None or begin is None:
        return None
    return Deadline(
        at=begin + timedelta(seconds=seconds),
        reason=c.STARTUP_DEADLINE_EXCEEDED,
        message=f"the workers did not train within spec.startupDeadlineSeconds ({seconds})",
    )


def _active(
    status: Mapping[str, Any], job: OptimizationJob, running_since: datetime
) -> Deadline | None:
    seconds = job.spec.active_deadline_seconds
    if seconds is None:
        return None
    before = int(status.get("activeSeconds") or 0)
    return Deadline(
        at=running_since + timedelta(seconds=seconds - before),
        reason=c.ACTIVE_DEADLINE_EXCEEDED,
        message=f"training took longer than spec.activeDeadlineSeconds ({seconds}); raise it and "
        "submit the job anew, which goes on from spec.checkpoint where there is one",
    )


def _startup_began(observed: Observed, conditions: Conditions) -> datetime | None:
    """When the job was made or resumed; None once it has trained since then."""
    resumed = conditions.false_since(c.SUSPENDED)
    if resumed is None:
        status = observed.job.status
        trained = bool((status.get("workers") or {}).get("generation"))
        if status.get("tasks"):  # a pool is numbered before any worker is there
            trained = status.get("activeSeconds") is not None
        return None if trained else observed.job.created
    stopped = conditions.false_since(c.RUNNING)
    return resumed if stopped is None or stopped <= resumed else None


def active_seconds(status: Mapping[str, Any], conditions: Conditions, now: datetime) -> int | None:
    """status.activeSeconds: grown by the time that ends with this decision, if one does."""
    before = status.get("activeSeconds")
    since = condition_true_since(status.get("conditions"), c.RUNNING)
    if since is None or conditions.true_since(c.RUNNING) is not None:
        return before
    return int(before or 0) + max(0, round((now - since).total_seconds()))


def stall_at(
    observed: Observed, job: OptimizationJob | None, conditions: Conditions
) -> datetime | None:
    """When the training counts as stalled if no step comes; None where there is no limit."""
    seconds = job.spec.stall_timeout_seconds if job else None
    since = conditions.true_since(c.RUNNING)
    if seconds is None or since is None:
        return None
    moved = [since]
    report = observed.report
    if report is not None and report.progress is not None:
        moved.append(datetime.fromtimestamp(report.progress.at, since.tzinfo))
    else:
        told = (observed.job.status.get("progress") or {}).get("lastUpdateTime")
        moved.append(parse_time(told) or since)
    for entry in (observed.job.status.get("restarts") or {}).get("recent") or ():
        if entry.get("reason") == c.STALLED:  # What it led to takes its time.
            moved.append(parse_time(entry.get("time")) or since)
    return max(moved) + timedelta(seconds=seconds)
