"""What keeps a pod from starting, in words that name the remedy.

Pure readings of one pod or of the API's refusals. What follows from them is the package's affair;
how a pod ended is told by `failures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwise.api import conditions as c
from shardwise_operator import identity
from shardwise_operator.observe import CreationError, Observed, PodView

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
NAMES_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a job waits."""

    reason: str
    message: str


def startup_trouble(pods: Sequence[PodView]) -> Trouble | None:
    """Why pods do not start: the first pod's trouble stands for all of its kind."""
    waiting = [pod for pod in pods if pod.living]
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


def missing_configmap(name: str, namespace: str, problem: str = "") -> Trouble:
    """The user's code is not there, or cannot be read."""
    if problem:
        return Trouble(
            reason=c.CONFIG_MAP_MISSING,
            message=f"spec.trainer.codeFrom.configMap: the ConfigMap {name} in namespace "
            f"{namespace} cannot be read: {problem}; it is tried again",
        )
    return Trouble(
        reason=c.CONFIG_MAP_MISSING,
        message=f"spec.trainer.codeFrom.configMap: there is no ConfigMap {name} in namespace "
        f"{namespace}; create it (kubectl create configmap {name} --from-file=FILE.py), and the "
        "job starts by itself",
    )


def creation_trouble(errors: Sequence[CreationError]) -> Trouble | None:
    """Why pods cannot even be created."""
    if not errors:
        return None
    first = errors[0]
    remedy = {
        c.QUOTA_EXCEEDED: "raise the namespace's quota, or ask for less in spec.template",
        c.FORBIDDEN: "let the namespace admit this pod (spec.template may have made it "
        "inadmissible), or grant the operator the right",
        c.NAME_TAKEN: "it is tried again",
        c.CONTAINER_CONFIG_ERROR: "correct spec.template",
    }.get(first.reason, "it is tried again")
    return Trouble(
        reason=first.reason if first.reason in (c.QUOTA_EXCEEDED, c.FORBIDDEN) else _word(first),
        message=f"{first.what} could not be created: {first.message}; {remedy}",
    )


def names_taken(observed: Observed, errors: Sequence[CreationError]) -> Trouble | None:
    """What has a name that the job would take, and is not the job's: it is never touched. Another
    pod name serves as well, and so the job starts all the same."""
    told = [error.message for error in errors if error.reason == c.NAME_TAKEN]
    if not told:
        # Further up are names that the job may never come to need.
        needed = len(observed.pods) + len(observed.foreign)
        told = [
            identity.in_the_way("pod", pod.name, leaves=False)
            for pod in observed.foreign
            if pod.index < needed and not pod.leaves
        ]
    if not told:
        return None
    return Trouble(
        reason=c.NAME_TAKEN,
        message=f"{'; '.join(told[:NAMES_TOLD])}; the job goes on without that name",
    )


def lost_nodes(pods: Sequence[PodView]) -> str:
    """Which nodes with pods of the job do not answer, in words; empty where all do.

    Their pods are deleted at once, but stay until the node is back or is deleted itself.
    """
    lost = [pod for pod in pods if pod.node_lost and not pod.ended]
    if not lost:
        return ""
    nodes = sorted({pod.node or "unknown" for pod in lost})
    kept = f"pod {lost[0].name} is" if len(lost) == 1 else f"{len(lost)} pods are"
    return (
        f"{'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)} "
        f"{'does' if len(nodes) == 1 else 'do'} not answer, and {kept} replaced elsewhere"
    )


def _waiting(pod: PodView) -> str:
    return f"{pod.waiting_reason}: {pod.waiting_message or 'no more is known'}"


def _word(error: CreationError) -> str:
    word = error.reason if error.reason.isalpha() and error.reason[:1].isupper() else ""
    return word or "CreationFailed"
