"""How a pod ended badly, and what follows: the exit-code rules.

Pure readings of one pod: the kubelet's word first, then the worker's own. What a failure costs is
`restarts`' affair, and whether it ends the job is `outcome`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from shardwise.api import conditions as c
from shardwise.api import exitcodes
from shardwise.coordinator.report import TaskReport
from shardwise_operator.observe import PodView

Kind = Literal["final", "refused", "spared", "counted"]
"""final: no other worker would fare better. refused: this worker does not fit the group. spared:
the cluster took the pod away. counted: a failure that the restart budget pays for."""

SIGKILLED = 137
SHUT_DOWN = frozenset({"Preempting", "Shutdown", "NodeShutdown", "Terminated"})
"""Reasons of a pod that its kubelet ended with the node, or for a more important one. What it did
not even start is known by that, whatever the reason."""

CRASHES = 5
"""In a row at one step, after which a worker's pod is replaced: its first process begins a crashed
worker again in place, which no pod status tells."""
RESULT_WAIT = timedelta(seconds=30)
"""For the result, once a worker has ended well: another's pod brings it."""

_CODES: dict[int, tuple[str, str]] = {
    exitcodes.USAGE: (c.CONTAINER_CONFIG_ERROR, "was started with an incomplete environment"),
    exitcodes.USER_CODE: (c.USER_CODE_FAILED, "the user's code raised an error"),
    exitcodes.GROUP_LOST: (c.WORKER_LOST, "lost its group"),
    exitcodes.REFUSED: (c.REFUSED_WORKER, "was refused by the coordinator"),
    exitcodes.OUTPUT: (c.OUTPUT_FAILED, "could not write the result; check spec.output.volume"),
    exitcodes.TERMINATED: (c.WORKER_LOST, "was terminated (SIGTERM)"),
    SIGKILLED: (c.WORKER_LOST, "was killed (SIGKILL)"),
}
_KINDS: dict[str, Kind] = {
    c.USER_CODE_FAILED: "final",
    c.NOT_FINITE: "final",
    c.CHECKPOINT_FAILED: "final",  # it could not be read
    # The worker that writes has told the coordinator, which has ended the task.
    c.OUTPUT_FAILED: "final",
    c.REFUSED_WORKER: "refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFailure:
    """How a pod ended badly."""

    pod: PodView
    kind: Kind
    reason: str
    message: str
    detail: str = ""
    secondhand: bool = False
    """It was told of another worker's failure, which explains its own."""


def pod_failure(pod: PodView) -> PodFailure:
    """Why this pod ended without a result, and without having been asked to."""
    where = f"worker {pod.index} (pod {pod.name}{f' on {pod.node}' if pod.node else ''})"
    taken = _taken(pod)
    if taken is not None:
        return PodFailure(pod=pod, kind="spared", reason=taken[0], message=f"{where} {taken[1]}")
    if pod.ended_container:
        return PodFailure(
            pod=pod,
            kind="counted",
            reason=c.INIT_CONTAINER_FAILED,
            message=f"{where}: its init container {pod.ended_container} failed (exit code "
            f"{pod.exit_code}, {pod.exit_reason or 'Error'}); see kubectl logs {pod.name} -c "
            f"{pod.ended_container}, and correct it in spec.template",
            detail=pod.termination,
        )
    if pod.exit_reason == "OOMKilled" or pod.told.get("reason") == "OOMKilled":
        return PodFailure(
            pod=pod,
            kind="counted",
            reason=c.OUT_OF_MEMORY,
            message=f"{where} used more memory than its limit; raise resources.limits.memory of "
            "the container trainer in spec.template, or lower spec.trainer.batchSize",
        )
    if pod.told.get("outcome") == "failed":
        return _told(pod, where)
    if pod.succeeded:
        return PodFailure(
            pod=pod,
            kind="counted",
            reason=c.OUTPUT_FAILED,
            message=f"{where} ended well, but no worker left a result; the image's Shardwise may "
            "not match the operator's",
        )
    return _unexplained(pod, where)


def _taken(pod: PodView) -> tuple[str, str] | None:
    """(reason, what happened) where the cluster, or somebody, took the pod away."""
    if pod.node_lost:
        what = "is on a node that does not answer any more; another pod takes its place"
        return c.NODE_LOST, what
    if pod.turned_away:
        why = f"{pod.pod_reason} {pod.pod_message}".strip() or "no reason is known"
        what = f"was turned away before it started: {why}; another pod takes its place"
        return c.REJECTED_BY_NODE, f"{what}; see kubectl describe node {pod.node or 'NODE'}"
    if pod.pod_reason == "Evicted":
        remedy = "request what it needs in spec.template"
        return c.EVICTED, f"was evicted: {pod.pod_message}; {remedy}"
    if pod.pod_reason in SHUT_DOWN:
        return c.PREEMPTED, f"was ended by its node: {pod.pod_reason} {pod.pod_message}".rstrip()
    if pod.left:
        return c.PREEMPTED, "was asked to leave, and left"
    if pod.disrupted:
        return c.PREEMPTED, f"was taken away by the cluster: {pod.disrupted}"
    if pod.deleting:
        return c.PREEMPTED, "was deleted"
    return None


def _told(pod: PodView, where: str) -> PodFailure:
    reason = str(pod.told.get("reason") or c.WORKER_LOST)
    detail = str(pod.told.get("detail") or "")
    return PodFailure(
        pod=pod,
        kind=_KINDS.get(reason, "counted"),
        reason=reason,
        message=f"{where}: {pod.told.get('message') or 'failed'}",
        detail=detail,
        # A worker whose own code raised tells where; one that was merely told of it does not.
        secondhand=(reason == c.USER_CODE_FAILED and not detail)
        or (reason in _KINDS and pod.exit_code == exitcodes.GROUP_LOST),
    )


def _unexplained(pod: PodView, where: str) -> PodFailure:
    code = pod.exit_code
    if code is None:
        reason = pod.pod_reason or "no exit code is known"
        return PodFailure(
            pod=pod,
            kind="counted",
            reason=c.WORKER_LOST,
            message=f"{where} failed: {reason} {pod.pod_message}".rstrip(),
        )
    said = f", {pod.exit_reason}" if pod.exit_reason else ""
    beside = f"; beside it ended {', '.join(pod.beside)}" if pod.beside else ""
    reason, what = _CODES.get(code, (c.WORKER_LOST, "ended unexpectedly; see its log"))
    return PodFailure(
        pod=pod,
        kind=_KINDS.get(reason, "counted"),
        reason=reason,
        message=f"{where} {what} (exit code {code}{said}){beside}",
        detail="" if pod.told else pod.termination,
    )


def bad_ends(pods: Sequence[PodView], now: datetime) -> tuple[PodFailure, ...]:
    """The pods that ended and are neither the result nor on the way to it."""
    found: list[PodFailure] = []
    for pod in pods:
        waits = pod.told.get("outcome") == "succeeded" and (
            pod.result is not None or now - (pod.ended_at or now) < RESULT_WAIT
        )
        if pod.ended and not (pod.succeeded and waits):
            found.append(pod_failure(pod))
    return tuple(found)


def crash_loops(pods: Sequence[PodView], report: TaskReport | None) -> tuple[PodFailure, ...]:
    """Living pods whose workers crash again and again while the training does no step."""
    found: list[PodFailure] = []
    losses = report.losses if report is not None else ()
    last = max((loss.step for loss in losses), default=0)
    for pod in pods:
        begin = pod.created_at.timestamp() if pod.created_at else 0.0
        crashes = sum(
            loss.worker == pod.name
            and loss.step == last
            and loss.at > begin
            and loss.cause in ("Killed", "Hung")
            for loss in losses
        )
        if pod.living and crashes >= CRASHES:
            message = (
                f"worker {pod.index} (pod {pod.name}) crashed {crashes} times in a row at step "
                f"{last}; see its log, and whether its memory limit leaves room (spec.template)"
            )
            found.append(PodFailure(pod=pod, kind="counted", reason=c.WORKER_LOST, message=message))
    return tuple(found)


def of_one_worker(failure: PodFailure) -> PodFailure:
    """The failure as it is in a pool: what one task has come to, another may not."""
    if failure.kind == "final" and failure.reason != c.OUTPUT_FAILED:
        return replace(failure, kind="counted")
    return failure


def newest_failure(failures: Sequence[PodFailure]) -> PodFailure | None:
    """The last of those worth telling of: a worker that left, or was deleted, is no failure."""
    worth = [failure for failure in failures if not (failure.pod.left or failure.pod.deleting)]
    return max(worth, key=_when, default=None)


def _when(failure: PodFailure) -> tuple[float, int]:
    ended = failure.pod.ended_at
    return ended.timestamp() if ended else 0.0, failure.pod.index
