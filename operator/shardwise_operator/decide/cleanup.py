"""After the end: which pods go, and when the job itself does. Nothing is created any more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from shardwise.api import conditions as c
from shardwise_operator.actions import Action, CloseTask, Decision, DeleteJob, DeletePod
from shardwise_operator.observe import Observed, PodView, parse_time

LEFTOVER_WAIT = timedelta(seconds=10)
"""For workers to end by themselves once the job has succeeded."""


def after_the_end(observed: Observed, ended: str) -> Decision:
    """What is left to do for a job that has `ended`, Succeeded or Failed. Its status stays."""
    spec = observed.job.manifest.get("spec") or {}
    since = parse_time(observed.job.status.get("completionTime")) or observed.now
    actions: list[Action] = [*_close(observed)]
    waits: list[datetime] = []
    policy = spec.get("cleanPodPolicy") or "Running"
    leftover_at = since + (LEFTOVER_WAIT if ended == c.SUCCEEDED else timedelta())
    doomed = [pod for pod in observed.pods if _doomed(pod, policy)]
    if doomed and leftover_at > observed.now:
        waits.append(leftover_at)
    else:
        actions += [DeletePod(name=pod.name, uid=pod.uid) for pod in doomed]
    expires = _expiry(spec, since)
    if expires is not None and expires <= observed.now:
        actions.append(DeleteJob())
    elif expires is not None:
        waits.append(expires)
    return Decision(
        actions=tuple(actions),
        status=None,
        requeue_after=min(waits) - observed.now if waits else None,
        why=(f"the job has ended: {ended}",),
    )


def being_deleted(observed: Observed) -> Decision:
    """The garbage collector removes what the job owns."""
    return Decision(
        actions=tuple(_close(observed)),
        status=None,
        requeue_after=None,
        why=("the job is being deleted",),
    )


def left_alone(observed: Observed, manager: str) -> Decision:
    """Another controller takes care of the job, its status included."""
    return Decision(
        actions=tuple(_close(observed)),
        status=None,
        requeue_after=None,
        why=(f"spec.managedBy is {manager}: the job is left alone",),
    )


def _close(observed: Observed) -> list[Action]:
    if observed.report is None:
        return []
    status = observed.job.status
    return [
        CloseTask(
            reason=status.get("reason") or "JobDeleted",
            message=status.get("message") or "the job was deleted",
        )
    ]


def _doomed(pod: PodView, policy: str) -> bool:
    if pod.deleting or policy == "None":
        return False
    # A pod whose trainer has ended runs on for as long as a sidecar does.
    return policy == "All" or not pod.over


def _expiry(spec: Mapping[str, Any], since: datetime) -> datetime | None:
    """The end's spec is read as it is: the job may have been accepted under another version."""
    seconds = spec.get("ttlSecondsAfterFinished")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 0:
        return None
    return since + timedelta(seconds=seconds)
