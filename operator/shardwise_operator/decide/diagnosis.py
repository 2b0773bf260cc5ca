"""What ails a pod, in words that name the remedy: why it does not start, or why it ended.

Pure readings of one pod or of the API's refusals. What follows from them is `outcome`'s and the
package's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwise.api import conditions as c
from shardwise.api import exitcodes
from shardwise_operator.observe import CreationError, PodView, parse_object

IMAGE_REASONS = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
CONFIG_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
CASCADE = frozenset({exitcodes.GROUP_LOST, exitcodes.TERMINATED})
"""Exit codes that follow from another worker's end rather than explain one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a job waits."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFailure:
    """How a pod ended badly."""

    pod: PodView
    reason: str
    message: str
    detail: str = ""
    cascade: bool = False
    """Probably the consequence of another pod's failure."""


def startup_trouble(pods: Sequence[PodView]) -> Trouble | None:
    """Why pods do not start: the first pod's trouble stands for all of its kind."""
    waiting = [pod for pod in pods if not pod.ended and not pod.deleting]
    for pod in waiting:
        if pod.waiting_reason in IMAGE_REASONS:
            return Trouble(
                reason=c.IMAGE_PULL_FAILED,
                message=f"pod {pod.name}: {_waiting(pod)}; "
                "check spec.trainer.image and the pull secrets in spec.template",
            )
        if pod.waiting_reason in CONFIG_REASONS:
            return Trouble(
                reason=c.CONTAINER_CONFIG_ERROR,
                message=f"pod {pod.name}: {_waiting(pod)}; "
                "create what it names, or correct spec.template",
            )
    stuck = [pod for pod in waiting if pod.unschedulable]
    if stuck:
        return Trouble(
            reason=c.UNSCHEDULABLE,
            message=f"{len(stuck)} of {len(pods)} pods find no node ({stuck[0].name}: "
            f"{stuck[0].unschedulable}); free or add nodes, or ask for less in spec.template or "
            "spec.workers.replicas",
        )
    return None


def creation_trouble(errors: Sequence[CreationError]) -> Trouble | None:
    """Why pods cannot even be created."""
    if not errors:
        return None
    first = errors[0]
    remedy = {
        c.QUOTA_EXCEEDED: "raise the namespace's quota, or ask for less in spec.template",
        c.FORBIDDEN: "let the namespace admit this pod (spec.template may have made it "
        "inadmissible), or grant the operator the right",
        "NameTaken": "it goes away by itself if it is of an earlier job of this name; else "
        "delete it or rename the job",
        c.CONTAINER_CONFIG_ERROR: "correct spec.template",
    }.get(first.reason, "it is tried again")
    return Trouble(
        reason=first.reason if first.reason in (c.QUOTA_EXCEEDED, c.FORBIDDEN) else _word(first),
        message=f"{first.what} could not be created: {first.message}; {remedy}",
    )


def pod_failure(pod: PodView) -> PodFailure:
    """Why this failed pod failed: the kubelet's word first, then the worker's own."""
    told = parse_object(pod.termination) or {}
    where = f"worker {pod.index} (pod {pod.name}{f' on {pod.node}' if pod.node else ''})"
    if pod.pod_reason == "Evicted":
        return PodFailure(
            pod=pod,
            reason=c.EVICTED,
            message=f"{where} was evicted: {pod.pod_message}; request what it needs in "
            "spec.template",
        )
    if pod.exit_reason == "OOMKilled":
        return PodFailure(
            pod=pod,
            reason=c.OUT_OF_MEMORY,
            message=f"{where} used more memory than its limit; raise resources.limits.memory of "
            "the container trainer in spec.template, or lower spec.trainer.batchSize",
        )
    if told.get("outcome") == "failed":
        return PodFailure(
            pod=pod,
            reason=str(told.get("reason") or c.WORKER_LOST),
            message=f"{where}: {told.get('message') or 'failed'}",
            detail=str(told.get("detail") or ""),
            # A worker whose own code raised tells where; one that was merely told of it does not.
            cascade=pod.exit_code in CASCADE
            or (told.get("reason") == c.USER_CODE_FAILED and not told.get("detail")),
        )
    code = pod.exit_code
    tail = "" if told else pod.termination
    if code is None:
        reason = pod.pod_reason or "no exit code is known"
        return PodFailure(
            pod=pod,
            reason=c.WORKER_LOST,
            message=f"{where} failed: {reason} {pod.pod_message}".rstrip(),
        )
    reasons = {
        exitcodes.USAGE: (c.CONTAINER_CONFIG_ERROR, "was started with an incomplete environment"),
        exitcodes.USER_CODE: (c.USER_CODE_FAILED, "the user's code raised an error"),
        exitcodes.GROUP_LOST: (c.WORKER_LOST, "lost its group"),
        exitcodes.REFUSED: (c.REFUSED_WORKER, "was refused by the coordinator"),
        exitcodes.OUTPUT: (c.OUTPUT_FAILED, "could not write the result; check spec.output.volume"),
        exitcodes.TERMINATED: (c.WORKER_LOST, "was terminated (SIGTERM)"),
        137: (c.WORKER_LOST, "was killed (SIGKILL)"),
    }
    said = f", {pod.exit_reason}" if pod.exit_reason else ""
    reason, what = reasons.get(code, (c.WORKER_LOST, "ended unexpectedly; see its log"))
    return PodFailure(
        pod=pod,
        reason=reason,
        message=f"{where} {what} (exit code {code}{said})",
        detail=tail,
        cascade=code in CASCADE,
    )


def _waiting(pod: PodView) -> str:
    return f"{pod.waiting_reason}: {pod.waiting_message or 'no more is known'}"


def _word(error: CreationError) -> str:
    word = error.reason if error.reason.isalpha() and error.reason[:1].isupper() else ""
    return word or "CreationFailed"
