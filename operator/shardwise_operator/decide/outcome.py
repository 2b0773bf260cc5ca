"""Whether the job has ended, and how: from its pods' statuses, then the coordinator's report.

The pods are asked first because they outlive the operator: after any restart the same end is
read from them. A worker that is merely lost ends nothing; see `restarts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from shardwise.coordinator.report import TaskReport
from shardwise_operator.decide.failures import PodFailure
from shardwise_operator.observe import Observed, PodView

FIRSTHAND_WAIT = timedelta(seconds=5)
"""How long a worker that was told of another's failure is kept from being the explanation."""
RESULT_POD_WAIT = timedelta(seconds=5)
"""For the pod that wrote the result to tell it; it may be gone."""
EXIT_CODE_WAIT = timedelta(seconds=10)
"""How long a failed task's pods may take to tell their exit codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The result was written, by the worker that led the last generation."""

    result: Mapping[str, Any] = field(hash=False)
    pod: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job is over without a result; pod is None where none is to blame."""

    reason: str
    message: str
    detail: str = ""
    pod: PodView | None = None
    named_pod: str = ""
    """The name of a pod that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """An end is near; what explains it may come within this time."""

    time: timedelta
    why: str


Outcome = Succeeded | Failed | Wait | None


def outcome(observed: Observed, failures: Sequence[PodFailure]) -> Outcome:
    """How the job ended, or None while it has not."""
    report = observed.report
    for pod in observed.pods:
        if pod.result is not None:
            return Succeeded(result=_whole(pod.result, report), pod=pod.name)
    if report is not None and report.state == "finished" and report.result is not None:
        left = RESULT_POD_WAIT - (observed.now - (observed.end_seen or observed.now))
        if left > timedelta() and any(not pod.ended for pod in observed.pods):
            return Wait(time=left, why="for the pod that wrote the result")
        return Succeeded(result=report.result, pod="")
    final = [failure for failure in failures if failure.kind == "final"]
    if final:
        return _final(observed, final)
    if report is not None and report.failure is not None:
        left = EXIT_CODE_WAIT - (observed.now - (observed.end_seen or observed.now))
        if left > timedelta() and any(pod.living for pod in observed.pods):
            return Wait(time=left, why="for the exit codes of a failed task's pods")
        return _reported(observed)
    return None


def _whole(result: Mapping[str, Any], report: TaskReport | None) -> Mapping[str, Any]:
    """A pod's result, with what its few bytes had no room for where the coordinator has it."""
    told = report.result if report is not None else None
    if told is None or told.get("weightsSha256") != result.get("weightsSha256"):
        return result
    return {**result, **{key: told[key] for key in ("artifacts", "compression") if key in told}}


def _final(observed: Observed, failures: Sequence[PodFailure]) -> Outcome:
    def blame(failure: PodFailure) -> tuple[bool, float, int]:
        ended = failure.pod.ended_at
        return failure.secondhand, ended.timestamp() if ended else 0.0, failure.pod.index

    first = min(failures, key=blame)
    if first.secondhand:
        left = FIRSTHAND_WAIT - (observed.now - (first.pod.ended_at or observed.now))
        if timedelta() < left and any(pod.living for pod in observed.pods):
            return Wait(time=left, why="for the pod that explains the failure")
        if observed.report is not None and observed.report.failure is not None:
            return _reported(observed)
    return Failed(reason=first.reason, message=first.message, detail=first.detail, pod=first.pod)


def _reported(observed: Observed) -> Failed:
    failure = observed.report.failure if observed.report else None
    assert failure is not None
    return Failed(
        reason=failure.reason,
        message=failure.message,
        detail=failure.detail,
        pod=next((pod for pod in observed.pods if pod.name == failure.worker), None),
        named_pod=failure.worker or "",
    )
