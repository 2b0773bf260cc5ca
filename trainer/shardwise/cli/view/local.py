"""A local run as `watch` shows jobs: the coordinator's report in the form of a status and pods."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shardwise.cli.names import INDEX
from shardwise.cli.view.fields import duration

if TYPE_CHECKING:
    from shardwise.coordinator.report import Loss, Progress, TaskReport

Made = dict[str, Any]
CHANGES = frozenset({"Joined", "Resized"})
"""Causes of a change of the group that are no recoveries."""


def as_job(name: str, report: TaskReport, started: datetime) -> Made:
    """The run as an OptimizationJob of that status."""
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
    return {
        "metadata": {"name": name},
        "spec": {"workers": {"replicas": report.workers}},
        "status": status,
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
    }


def _recovery(loss: Loss) -> Made:
    return {
        "worker": loss.worker,
        "cause": loss.cause,
        "step": loss.step,
        "seconds": loss.seconds,
        "time": datetime.fromtimestamp(loss.at, UTC).isoformat(),
    }
