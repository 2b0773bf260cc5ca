"""What the coordinator is asked for: to open the task, resize it, drain it, or to know of losses.

Each request follows from what was last asked for and what is wanted now, so it is made once, and
made again by an operator that has been restarted. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardwise.coordinator.report import Cause
from shardwise_operator.actions import Action, DrainTask, LostWorker, OpenTask, ResizeTask
from shardwise_operator.decide.acceptance import Acceptance
from shardwise_operator.observe import Observed

LOSSES = ("waiting", "forming", "training")
"""States in which the loss of a worker means something."""


def task_actions(
    observed: Observed, accepted: Acceptance, generation: int, *, draining: str
) -> list[Action]:
    """Requests to the coordinator; `draining` is the reason to let all workers leave, or empty."""
    if observed.report is None:
        if not accepted.trainer:
            return []
        opened: list[Action] = [open_task(observed, accepted, generation)]
        return [*opened, DrainTask(reason=draining)] if draining else opened
    actions: list[Action] = []
    asked = observed.asked
    if asked is not None and not draining:
        wanted = (accepted.desired, accepted.least)
        if (asked.workers, asked.min_workers) != wanted:
            actions.append(ResizeTask(workers=accepted.desired, min_workers=accepted.least))
    if draining and not (asked is not None and asked.draining):
        actions.append(DrainTask(reason=draining))
    return [*actions, *_losses(observed)]


def open_task(observed: Observed, accepted: Acceptance, generation: int) -> OpenTask:
    """The task with all that an earlier coordinator knew of it and that the status kept."""
    spec = observed.job.manifest.get("spec") or {}
    status = observed.job.status
    checkpoint = spec.get("checkpoint")
    milliseconds = accepted.job.spec.workers.detection_milliseconds if accepted.job else 500
    return OpenTask(
        workers=accepted.desired,
        min_workers=accepted.least,
        trainer=accepted.trainer,
        generation_floor=generation,
        checkpoint=checkpoint if isinstance(checkpoint, Mapping) else None,
        detection_seconds=milliseconds / 1000,
        recoveries={
            entry["cause"]: entry["count"] for entry in status.get("recoveriesByCause") or ()
        },
        seconds={
            entry["kind"]: _number(entry["seconds"]) for entry in status.get("goodputSeconds") or ()
        },
        lost_steps=int(status.get("lostSteps") or 0),
        reached_step=int((status.get("progress") or {}).get("step") or 0),
        record=str((status.get("tasks") or {}).get("record") or ""),
    )


def _losses(observed: Observed) -> list[Action]:
    """Workers that the coordinator still counts on and whose pods tell that they are gone."""
    report = observed.report
    if report is None or report.state not in LOSSES:
        return []
    told = observed.asked.lost if observed.asked else frozenset()
    pods = {pod.name: pod for pod in observed.pods}
    actions: list[Action] = []
    for worker in sorted({*report.connected, *report.members}):
        pod = pods.get(worker)
        if pod is None:
            # Its connection is cut by this, so it is told of once.
            if worker in report.connected:
                actions.append(LostWorker(worker=worker, uid="", cause="Preempted"))
        elif pod.uid not in told and (pod.failed or pod.node_lost):
            cause: Cause = "Unreachable" if pod.node_lost else "Killed"
            actions.append(LostWorker(worker=worker, uid=pod.uid, cause=cause))
    return actions


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0
