"""The parts of a status that tell of recoveries, of where the time went, and of checkpoints.

The coordinator's totals go on from those of the status, so they are taken as they are. Where it
tells nothing (it has just been started), what the status has stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shardwise.api import conditions as c
from shardwise.api.metrics import RECOVERY_CAUSES
from shardwise.coordinator.report import TaskReport
from shardwise_operator.decide.conditions import Conditions, format_time

KEYS = (
    "recoveries",
    "recoveriesByCause",
    "lastRecovery",
    "lostSteps",
    "goodput",
    "goodputSeconds",
    "checkpoint",
)


def recovery_status(report: TaskReport | None, old: Mapping[str, Any]) -> dict[str, Any]:
    """These parts of the status, by their names in it."""
    status = {key: old[key] for key in KEYS if key in old}
    if report is None:
        return status
    if report.recoveries:
        counts = {cause: count for cause, count in sorted(report.recoveries.items()) if count}
        status["recoveriesByCause"] = [
            {"cause": cause, "count": count} for cause, count in counts.items()
        ]
        status["recoveries"] = sum(counts.get(cause, 0) for cause in RECOVERY_CAUSES)
    last = next((loss for loss in reversed(report.losses) if loss.seconds is not None), None)
    if last is not None:
        status["lastRecovery"] = {
            "worker": last.worker,
            "cause": last.cause,
            "step": last.step,
            "seconds": f"{last.seconds:.3f}",
            "time": format_time(datetime.fromtimestamp(last.at, UTC)),
        }
    if report.lost_steps:
        status["lostSteps"] = report.lost_steps
    status |= _goodput(report.seconds)
    if report.checkpoint is not None:
        status["checkpoint"] = _checkpoint(report, old.get("checkpoint") or {})
    return status


def _goodput(seconds: Mapping[str, float]) -> dict[str, Any]:
    total = sum(seconds.values())
    if total <= 0:
        return {}
    return {
        "goodput": f"{seconds.get('productive', 0.0) / total:.3f}",
        "goodputSeconds": [
            {"kind": kind, "seconds": f"{spent:.2f}"} for kind, spent in sorted(seconds.items())
        ],
    }


def _checkpoint(report: TaskReport, old: Mapping[str, Any]) -> dict[str, Any]:
    """The newest good one; a failure since is told beside it."""
    found = report.checkpoint
    assert found is not None
    status = {key: value for key, value in old.items() if key != "error"}
    if found.step > 0 and found.bytes > 0:
        status = {
            "step": found.step,
            "time": format_time(datetime.fromtimestamp(found.at, UTC)),
            "bytes": found.bytes,
            "seconds": f"{found.seconds:.2f}",
        }
    return {**status, "error": found.error} if found.error else status


def set_checkpointed(
    conditions: Conditions, checkpoint: Mapping[str, Any] | None, *, wanted: bool
) -> None:
    """The condition Checkpointed. Its message has no step in it: each write of it goes to all
    that watch the job."""
    if not wanted:
        return
    error = (checkpoint or {}).get("error")
    if error:
        conditions.set(
            c.CHECKPOINTED,
            False,
            c.CHECKPOINT_FAILED,
            f"the last checkpoint failed: {error}; training goes on, and the next one is tried "
            "when it is due; check spec.checkpoint and the room that is left there",
        )
    elif (checkpoint or {}).get("step"):
        message = "the newest checkpoint is complete; see status.checkpoint"
        conditions.set(c.CHECKPOINTED, True, c.CHECKPOINT_WRITTEN, message)
    else:
        message = "no checkpoint has been written yet"
        conditions.set(c.CHECKPOINTED, False, c.CHECKPOINT_PENDING, message)
