"""The job's time limits: how long it may take to start, and how long it may train.

Both count from times that are in the status, so a restart of the operator neither extends nor
shortens them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from shardwise.api import conditions as c
from shardwise.api.types import OptimizationJob
from shardwise_operator.observe import Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The limit that is in force now."""

    at: datetime
    reason: str
    message: str


def deadline(
    observed: Observed, job: OptimizationJob | None, running_since: datetime | None
) -> Deadline | None:
    """The next deadline; None where none is set, or the spec cannot be read any more."""
    if job is None:
        return None
    if running_since is None:
        seconds, begin = job.spec.startup_deadline_seconds, observed.job.created
        if seconds is None or begin is None:
            return None
        return Deadline(
            at=begin + timedelta(seconds=seconds),
            reason=c.STARTUP_DEADLINE_EXCEEDED,
            message=f"the workers did not train within spec.startupDeadlineSeconds ({seconds})",
        )
    seconds = job.spec.active_deadline_seconds
    if seconds is None:
        return None
    return Deadline(
        at=running_since + timedelta(seconds=seconds),
        reason=c.ACTIVE_DEADLINE_EXCEEDED,
        message=f"training took longer than spec.activeDeadlineSeconds ({seconds})",
    )
