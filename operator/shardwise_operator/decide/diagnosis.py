"""What keeps a pod from starting, in words that name the remedy.

Pure readings of one pod or of the API's refusals. What follows from them is the package's affair;
how a pod ended is told by `failures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from shardwise.api import conditions as c
from shardwise_operator import identity
from shardwise_operator.decide.remedies import remedy_for
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
SLOW = timedelta(seconds=60)
"""After its creation, a pod that is on a node and has not started its trainer is told of."""
NOW = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a job waits."""

    reason: str
    message: str


def startup_trouble(
    pods: Sequence[PodView],
    now: datetime | None = None,
    words: Mapping[str, str] = MappingProxyType({}),
) -> Trouble | None:
    """Why pods do not start: the first pod's trouble stands for all of its kind. `words` are those
    of the newest warning about a pod, by its uid."""
    waiting = [pod for pod in pods if pod.living]
    for pod in waiting:
        trouble = _of_container(pod)
        if trouble is not None:
            return trouble
    gated = [pod for pod in waiting if pod.gates]
    if gated:
        return Trouble(
            reason=c.SCHEDULING_GATED,
            message=f"pod {gated[0].name} has scheduling gates ({', '.join(gated[0].gates)}): "
            "whatever set them has to remove them before it is scheduled; see "
            "schedulingGates in spec.template, and the admission webhooks of the cluster",
        )
    unfit = [pod for pod in waiting if pod.unschedulable]
    if unfit:
        general = "free or add nodes, or ask for less in spec.template or spec.workers.replicas"
        return Trouble(
            reason=c.UNSCHEDULABLE,
            message=f"{len(unfit)} of {len(pods)} pods find no node ({unfit[0].name}: "
            f"{unfit[0].unschedulable}); {remedy_for(unfit[0].unschedulable, general)}",
        )
    return next((_slow(pod, words) for pod in waiting if now and slow_in(pod, now) == NOW), None)


def _of_container(pod: PodView) -> Trouble | None:
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
    if pod.waiting_reason == "CrashLoopBackOff":
        return Trouble(
            reason=c.SIDECAR_FAILED,
            message=f"pod {pod.name}: its container {pod.waiting_container} crashes again and "
            f"again, and the trainer {'waits for it' if pod.phase == 'Pending' else 'goes on'}; "
            f"see kubectl logs {pod.name} -c {pod.waiting_container}; correct it in "
            "spec.template, or where it is injected",
        )
    if pod.beside:
        return Trouble(
            reason=c.SIDECAR_FAILED,
            message=f"pod {pod.name}: beside the trainer ended {', '.join(pod.beside)}, which "
            "nothing begins again in a pod of restartPolicy Never; correct it in spec.template, or "
            "where it is injected; deleting the pod replaces it",
        )
    return None


def slow_in(pod: PodView, now: datetime) -> timedelta | None:
    """How long until a pod that is on a node and does not start is told of, none where it is due;
    None where there is nothing to tell."""
    if not pod.living or pod.phase != "Pending" or pod.given or not pod.node:
        return None
    return max(NOW, SLOW - (now - (pod.created_at or now)))


def _slow(pod: PodView, words: Mapping[str, str]) -> Trouble:
    said = words.get(pod.uid, "")
    if said:
        return Trouble(
            reason=c.CONTAINER_CONFIG_ERROR if said.startswith("Failed") else c.STARTUP_SLOW,
            message=f"pod {pod.name} does not start on {pod.node}: {said}; "
            + remedy_for(said, f"see kubectl describe pod {pod.name}"),
        )
    if pod.init_running:
        message = (
            f"pod {pod.name} has waited for more than a minute for its init container "
            f"{pod.init_running}, which runs and has not ended (or, as a sidecar, has not passed "
            f"its startup probe); see kubectl logs {pod.name} -c {pod.init_running}"
        )
    else:
        message = (
            f"pod {pod.name} has not started on {pod.node} for more than a minute; a large image "
            f"or a slow volume takes its time; see kubectl describe pod {pod.name}"
        )
    return Trouble(reason=c.STARTUP_SLOW, message=message)


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
        message=f"{first.what} could not be created: {first.message}; "
        + remedy_for(first.message, remedy),
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
