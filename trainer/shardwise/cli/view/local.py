"""A local run as `watch` shows jobs: the coordinator's report in the form of a status and pods."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shardwise.cli.names import INDEX
from shardwise.cli.view.describe import CHANGES
from shardwise.cli.view.fields import duration

if TYPE_CHECKING:
    from shardwise.coordinator.report import Loss, Progress, TaskReport, TaskRow, TasksReport

Made = dict[str, Any]


def as_job(
    name: str, report: TaskReport, started: datetime, tasks: Mapping[str, Any] | None = None
) -> Made:
    """The run as an OptimizationJob of that status; `tasks` is its spec.tasks."""
    lost = [loss for loss in report.losses if loss.seconds is not None]
    spent = sum(report.seconds.values())
    recoveries = sum(n for cause, n in report.recoveries.items() if cause not in CHANGES)
    status: Made = {
        "state": _state(report),
        "message": report.waiting,
        "startTime": started.isoformat(),
        "progress": _progress(report.progress) if report.progress else None,
        "workers": {
            "summary": f"{len(report.members)}/{report.workers}",
            "generation": report.generation,
            "standby": len(report.standbys),
        },
        "recoveries": recoveries,
        "recoveriesByCause": [
            {"cause": cause, "count": count}
            for cause, count in sorted(report.recoveries.items())
            if count and cause not in CHANGES
        ],
        "lastRecovery": _recovery(lost[-1]) if lost else None,
        "goodput": f"{report.seconds.get('productive', 0.0) / spent:.3f}" if spent > 0 else None,
        "goodputSeconds": [
            {"kind": kind, "seconds": seconds} for kind, seconds in report.seconds.items()
        ],
    }
    if report.checkpoint is not None:
        found = report.checkpoint
        status["checkpoint"] = {"step": found.step or None, "error": found.error}
    spec: Made = {"workers": {"replicas": report.workers}}
    if tasks is not None:
        spec["tasks"] = tasks
    if report.tasks is not None:
        status["tasks"] = as_tasks(report.tasks)
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def as_tasks(report: TasksReport) -> Made:
    """The tasks as status.tasks has them."""
    return {
        "total": report.total,
        "pending": report.pending,
        "running": report.running,
        "succeeded": report.succeeded,
        "failed": report.failed,
        "stopped": report.stopped,
        "utilization": f"{report.utilization:.3f}",
        "best": None if report.best is None else _task(report.best),
        "pareto": [_task(row) for row in report.pareto],
        "items": [_task(row) for row in report.rows],
    }


def _task(row: TaskRow) -> Made:
    return {
        "name": row.name,
        "state": row.state,
        "parameters": [{"name": key, "value": str(v)} for key, v in row.parameters.items()],
        "metrics": [{"name": key, "value": f"{v:.6g}"} for key, v in row.metrics.items()],
        "weightsSha256": row.weights_sha256,
        "step": row.step,
        "totalSteps": row.total_steps,
        "workers": row.workers,
        "seconds": f"{row.seconds:.1f}",
        "ended": row.ended,
        "reason": row.reason,
        "message": row.message,
    }


def as_pods(report: TaskReport) -> list[Made]:
    """The workers as pods: members run, others that are connected still start or stand by."""
    names = dict.fromkeys((*report.members, *report.connected))
    return [
        {
            "metadata": {"name": name, "labels": {INDEX: name.rpartition("-")[2]}},
            "status": {
                "phase": "Running",
                "containerStatuses": [{"name": "trainer", "ready": name in report.members}],
            },
        }
        for name in names
    ]


def _state(report: TaskReport) -> str:
    states = {"training": "Running", "finished": "Succeeded", "failed": "Failed"}
    return states.get(report.state, "Recovering" if report.progress else "Starting")


def _progress(progress: Progress) -> Made:
    total, eta = progress.total_steps, progress.eta_seconds
    return {
        "step": progress.step,
        "totalSteps": total,
        "epoch": progress.epoch,
        "percent": min(100, progress.step * 100 // total) if total > 0 else 0,
        "estimatedRemaining": duration(eta) if eta is not None else None,
        "samplesPerSecond": progress.samples_per_second,
        "loss": progress.loss,
        "stage": progress.stage or None,
    }


def _recovery(loss: Loss) -> Made:
    return {
        "worker": loss.worker,
        "cause": loss.cause,
        "step": loss.step,
        "seconds": loss.seconds,
        "time": datetime.fromtimestamp(loss.at, UTC).isoformat(),
    }
