"""Whether the job has ended, and how: from its pods' statuses, then the coordinator's report.

The pods are asked first because they outlive the operator: after any restart the same end is
read from them. The coordinator knows of losses that no pod status tells, such as a dead node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from shardwise.api import conditions as c
from shardwise_operator.decide.diagnosis import PodFailure, pod_failure
from shardwise_operator.observe import Observed, PodView, parse_object

CASCADE_WAIT = timedelta(seconds=5)
"""How long a pod that only followed another's failure is kept from being the explanation."""
EXIT_CODE_WAIT = timedelta(seconds=10)
"""How long a failed task's pods may take to tell their exit codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """Rank 0 wrote its result, and no worker failed."""

    result: Mapping[str, Any] = field(hash=False)


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


def outcome(observed: Observed, desired: int, generation: int) -> Outcome:
    """How the job ended, or None while it has not."""
    failures = [
        pod_failure(pod)
        for pod in observed.pods
        if pod.failed and not (pod.deleting and generation == 0)
    ]
    if failures:
        return _failed(observed, failures)
    result = _result(observed.pods)
    if result is not None:
        if all(pod.succeeded for pod in observed.pods):
            return Succeeded(result=result)
        return None
    if observed.pods and len(observed.pods) >= desired and all(p.succeeded for p in observed.pods):
        return Failed(
            reason=c.OUTPUT_FAILED,
            message="all workers ended well, but worker 0 left no result; the image's Shardwise "
            "may not match the operator's",
            pod=observed.pods[0],
        )
    return _lost(observed, desired, generation)


def _failed(observed: Observed, failures: list[PodFailure]) -> Outcome:
    def blame(failure: PodFailure) -> tuple[bool, float, int]:
        ended = failure.pod.finished_at
        return failure.cascade, ended.timestamp() if ended else 0.0, failure.pod.index

    first = min(failures, key=blame)
    report = observed.report
    if first.cascade:
        ended = first.pod.finished_at or observed.now
        left = CASCADE_WAIT - (observed.now - ended)
        others = any(not pod.ended for pod in observed.pods)
        if others and timedelta() < left:
            return Wait(time=min(left, CASCADE_WAIT), why="for the pod that explains the failure")
        if report is not None and report.failure is not None:
            return _reported(observed)
    return Failed(reason=first.reason, message=first.message, detail=first.detail, pod=first.pod)


def _reported(observed: Observed) -> Failed:
    failure = observed.report.failure if observed.report else None
    assert failure is not None
    pod = next((pod for pod in observed.pods if pod.name == failure.worker), None)
    return Failed(
        reason=failure.reason,
        message=failure.message,
        detail=failure.detail,
        pod=pod,
        named_pod=failure.worker or "",
    )


def _lost(observed: Observed, desired: int, generation: int) -> Outcome:
    """Workers that are gone, or that the coordinator has given up, while no pod tells of it."""
    if generation > 0:
        there = {pod.index for pod in observed.pods if not pod.deleting or pod.ended}
        missing = [index for index in range(desired) if index not in there]
        if missing:
            name = f"{observed.job.name}-{missing[0]}"
            return Failed(
                reason=c.WORKER_LOST,
                message=f"worker {missing[0]} (pod {name}) was deleted after training had begun; "
                "this version does not replace workers: delete the job and apply it anew",
                pod=next((p for p in observed.pods if p.index == missing[0]), None),
                named_pod=name,
            )
    if observed.report is not None and observed.report.failure is not None:
        left = EXIT_CODE_WAIT - (observed.now - (observed.failure_seen or observed.now))
        if left > timedelta():
            return Wait(time=left, why="for the exit codes of a failed task's pods")
        return _reported(observed)
    return None


def _result(pods: tuple[PodView, ...]) -> Mapping[str, Any] | None:
    for pod in pods:
        if pod.index == 0 and pod.succeeded:
            told = parse_object(pod.termination) or {}
            result = told.get("result")
            if told.get("outcome") == "succeeded" and isinstance(result, dict):
                return result
    return None
