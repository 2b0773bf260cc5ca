"""Which ended workers are replaced, and when: the restart budget and its waits.

A failure that counts is noted in the status before its pod is deleted, by the pod's uid: so it
counts once, wherever the operator is killed. What the cluster took away is never counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shardwise.api import conditions as c
from shardwise.api.policy import RestartPolicy
from shardwise_operator.decide.conditions import format_time
from shardwise_operator.decide.failures import PodFailure
from shardwise_operator.decide.outcome import Failed
from shardwise_operator.observe import Observed, PodView, parse_time

SPARED_WAIT = timedelta(seconds=5)
"""Between the end of a pod that the cluster took away and its replacement: a node that turns a
pod away may do so again at once."""
REFUSED_WAIT = timedelta(seconds=60)
"""A refused worker's replacement is likely to be refused as well."""
LONGEST_WAIT = timedelta(seconds=60)
NOTED_POLL = timedelta(seconds=1)
RECENT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """What follows from the pods that ended."""

    status: Mapping[str, Any] | None = field(hash=False)
    """The new status.restarts."""
    replace: tuple[PodView, ...]
    """Ended pods that are to be deleted now, so that others take their places."""
    requeue: timedelta | None
    noted: tuple[PodFailure, ...]
    """Failures that are in the status for the first time."""
    exceeded: Failed | None
    """The budget is spent."""


def restarts(
    observed: Observed, policy: RestartPolicy, failures: Sequence[PodFailure], step: int
) -> Restarts:
    """The budget after these failures, and which of their pods are due to be replaced."""
    old = observed.job.status.get("restarts") or {}
    known = {entry["uid"] for entry in old.get("recent") or ()}
    counted = [failure for failure in failures if failure.kind == "counted"]
    noted = tuple(failure for failure in counted if failure.pod.uid not in known)
    status = _noted(observed, policy, noted, step)
    wait = backoff(int((status or {}).get("withoutProgress") or 0))
    replace: list[PodView] = []
    waits = [NOTED_POLL] if noted else []
    for failure in failures:
        if failure.pod.deleting or failure.kind == "final" or failure in noted:
            continue
        due = {"refused": REFUSED_WAIT, "spared": spared_wait(failure.pod.rejections)}.get(
            failure.kind, wait
        )
        left = due - (observed.now - (failure.pod.ended_at or observed.now - due))
        if left > timedelta():
            waits.append(left)
        else:
            replace.append(failure.pod)
    count = int((status or {}).get("inWindow") or 0)
    exceeded = None
    if counted and count > policy.max_restarts:
        last = max(counted, key=lambda failure: (_ended(failure.pod), failure.pod.index))
        exceeded = _exceeded(count, policy, last.message, last)
    return Restarts(
        status=status,
        replace=tuple(replace),
        requeue=min(waits, default=None),
        noted=noted,
        exceeded=exceeded,
    )


def backoff(without_progress: int) -> timedelta:
    """The wait before the replacement of a worker, after so many in a row without a step."""
    if without_progress <= 1:
        return timedelta()
    # No power beyond the sixth is needed, and a large one would not fit.
    return min(LONGEST_WAIT, timedelta(seconds=2 ** (min(without_progress, 8) - 2)))


def spared_wait(rejections: int) -> timedelta:
    """The wait before the replacement of a pod that the cluster took, after so many in a row that
    nodes turned away."""
    wait: timedelta = SPARED_WAIT * 2 ** max(0, min(rejections, 8) - 1)
    return min(LONGEST_WAIT, wait)


def stall_noted(
    status: Mapping[str, Any] | None, observed: Observed, policy: RestartPolicy, step: int
) -> tuple[dict[str, Any], Failed | None]:
    """status.restarts once a stall counts: all workers created so far are to be replaced."""
    newest = max((pod.created_at for pod in observed.pods if pod.created_at), default=observed.now)
    entry = {
        "uid": f"stall-{int(observed.now.timestamp())}",
        "reason": c.STALLED,
        "time": format_time(observed.now),
    }
    new = _with(status or {}, [entry], observed.now, policy, step)
    new["obsoleteTime"] = format_time(newest)
    if new["inWindow"] <= policy.max_restarts:
        return new, None
    message = f"the training stalled at step {step}"
    return new, _exceeded(new["inWindow"], policy, message, None)


def obsolete(status: Mapping[str, Any] | None, pods: Sequence[PodView]) -> tuple[PodView, ...]:
    """The living pods that a stall has condemned."""
    limit = parse_time((status or {}).get("obsoleteTime"))
    if limit is None:
        return ()
    return tuple(
        pod for pod in pods if pod.living and pod.created_at is not None and pod.created_at <= limit
    )


def _noted(
    observed: Observed, policy: RestartPolicy, noted: Sequence[PodFailure], step: int
) -> dict[str, Any] | None:
    old = observed.job.status.get("restarts") or {}
    if not noted and not old:
        return None
    entries = [
        {
            "uid": failure.pod.uid,
            "pod": failure.pod.name,
            "reason": failure.reason,
            "time": format_time(failure.pod.ended_at or observed.now),
        }
        for failure in noted
    ]
    kept = {pod.uid for pod in observed.pods}
    return _with(old, entries, observed.now, policy, step, kept)


def _with(
    old: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    now: datetime,
    policy: RestartPolicy,
    step: int,
    kept: Set[str] = frozenset(),
) -> dict[str, Any]:
    """status.restarts with more entries, and without those that do not count any more."""
    begin = now - timedelta(seconds=policy.window_seconds)

    def counts(entry: Mapping[str, Any]) -> bool:
        return (parse_time(entry.get("time")) or now) > begin

    everything = [*(old.get("recent") or ()), *entries]
    # The entry of a pod that is still there keeps it from being counted again.
    recent = [entry for entry in everything if counts(entry) or entry["uid"] in kept][-RECENT:]
    new = {
        **old,
        "total": int(old.get("total") or 0) + len(entries),
        "inWindow": sum(map(counts, recent)),
        "recent": recent,
    }
    if entries:
        moved = "step" not in old or step > int(old["step"])
        new["withoutProgress"] = 1 if moved else int(old.get("withoutProgress") or 0) + 1
        new["step"] = step
    return new


def _exceeded(count: int, policy: RestartPolicy, last: str, failure: PodFailure | None) -> Failed:
    return Failed(
        reason=c.RESTART_BUDGET_EXCEEDED,
        message=f"{count} failures within {policy.window_seconds} s are more than "
        f"spec.restartPolicy.maxRestarts ({policy.max_restarts}); the last: {last}",
        detail=failure.detail if failure else "",
        pod=failure.pod if failure else None,
    )


def _ended(pod: PodView) -> float:
    return pod.ended_at.timestamp() if pod.ended_at else 0.0
