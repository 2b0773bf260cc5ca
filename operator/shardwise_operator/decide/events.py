"""The Events of a decision: what the new status tells that the old one did not.

They follow from the two statuses alone, and are sent once the new one is written: so each is sent
once, wherever the operator is killed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardwise.api import conditions as c
from shardwise_operator.actions import Action, EmitEvent

GOOD_STATES = frozenset({"Pending", "Starting", "Running", "Suspending", "Suspended", "Succeeded"})
Status = Mapping[str, Any]
TASKS_FAILED = "TasksFailed"
FAILED_TASKS = 10
"""Failed tasks that are told of one by one; of more there is one Event."""


def news(old: Status, new: Status) -> tuple[Action, ...]:
    """All Events of a job that is worked on."""
    return (
        *state_events(old, new),
        *recovery_events(old, new),
        *failure_events(old, new),
        *condition_events(old, new),
        *scale_events(old, new),
        *task_events(old, new),
    )


def state_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One where the state or its reason changes."""
    if (old.get("state"), old.get("reason")) == (new.get("state"), new.get("reason")):
        return ()
    good = new["state"] in GOOD_STATES and new["reason"] != c.STALLED
    return (
        EmitEvent(
            type="Normal" if good else "Warning",
            reason=new["reason"],
            message=new["message"],
            action="SetState",
        ),
    )


def failure_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One for a worker that failed while the job goes on."""
    before, now = old.get("lastFailure") or {}, new.get("lastFailure")
    if now is None or new["state"] == "Failed":
        return ()
    if (before.get("pod"), before.get("time")) == (now.get("pod"), now.get("time")):
        return ()
    return (
        EmitEvent(
            type="Warning",
            reason=now["reason"],
            message=now["message"],
            action="RecordFailure",
        ),
    )


def recovery_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One for a recovery that the status tells of for the first time: it is over by then, while
    the count grows as soon as the worker is lost."""
    last = new.get("lastRecovery")
    if not last or last == old.get("lastRecovery"):
        return ()
    message = (
        f"training went on {last['seconds']} s after {last['worker']} was lost "
        f"({last['cause']}) at step {last['step']}"
    )
    return (EmitEvent(type="Normal", reason="Recovered", message=message, action="Recover"),)


def condition_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One for each condition that begins or ends to tell of trouble beside the job's state: a spec
    that is not in force, checkpoints that fail, workers that are missing for a reason."""
    if new["state"] != "Running":
        return ()  # The state and its reason tell more.
    before, now = _conditions(old), _conditions(new)
    events: list[Action] = []
    for type_, entry in now.items():
        was, reason = before.get(type_) or {}, entry["reason"]
        if was.get("reason") == reason:
            continue
        bad = reason in _TROUBLES.get(type_, ()) or (
            type_ == c.DEGRADED and entry["status"] == "True" and reason not in _PASSING
        )
        good = reason in _BACK.get(type_, ()) and bool(was)
        if bad or good:
            message = entry["message"]
            events.append(
                EmitEvent(
                    type="Warning" if bad else "Normal",
                    reason=reason,
                    message=message,
                    action="SetCondition",
                )
            )
    return tuple(events)


_TROUBLES = {
    c.ACCEPTED: (c.IMMUTABLE_FIELD_CHANGED, c.INVALID_SPEC, c.REPLICAS_CLAMPED),
    c.CHECKPOINTED: (c.CHECKPOINT_FAILED,),
}
_BACK = {
    c.CHECKPOINTED: (c.CHECKPOINT_WRITTEN,),
    c.DEGRADED: (c.ALL_WORKERS,),
}
_PASSING = (c.FEWER_WORKERS, c.RECOVERING)
"""Of Degraded: the group is small for a moment, and a recovery or a scaling says why."""


def _conditions(status: Status) -> dict[str, Mapping[str, Any]]:
    return {str(entry["type"]): entry for entry in status.get("conditions") or ()}


def scale_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One where another number of workers is asked for."""
    before = (old.get("workers") or {}).get("desired")
    now = (new.get("workers") or {}).get("desired")
    if not before or not now or before == now:
        return ()
    message = f"{now} workers are asked for, where {before} were"
    return (EmitEvent(type="Normal", reason="Scaled", message=message, action="Scale"),)


def task_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One for each task that has failed, up to a number, and one for all others."""
    before, now = old.get("tasks") or {}, new.get("tasks") or {}
    known, count = int(before.get("failed") or 0), int(now.get("failed") or 0)
    if count <= known or known > FAILED_TASKS:
        return ()
    told = {row["name"] for row in before.get("items") or () if row.get("state") == "Failed"}
    fresh = [
        row
        for row in now.get("items") or ()
        if row.get("state") == "Failed" and row["name"] not in told
    ][: min(count, FAILED_TASKS) - known]
    events = [
        EmitEvent(
            type="Warning",
            reason=row.get("reason") or c.WORKER_LOST,
            message=f"task {row['name']} failed: {row.get('message') or 'no more is known'}",
            action="EndTask",
        )
        for row in fresh
    ]
    if count > FAILED_TASKS:
        message = (
            f"more than {FAILED_TASKS} tasks have failed; status.tasks counts them, and "
            "tasks.csv on the output volume has the reason of each"
        )
        events.append(
            EmitEvent(type="Warning", reason=TASKS_FAILED, message=message, action="EndTask")
        )
    return tuple(events)
