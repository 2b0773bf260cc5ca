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


def state_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One where the state or its reason changes."""
    if (old.get("state"), old.get("reason")) == (new.get("state"), new.get("reason")):
        return ()
    good = new["state"] in GOOD_STATES and new["reason"] != c.STALLED
    return (
        EmitEvent(
            type="Normal" if good else "Warning", reason=new["reason"], message=new["message"]
        ),
    )


def failure_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One for a worker that failed while the job goes on."""
    before, now = old.get("lastFailure") or {}, new.get("lastFailure")
    if now is None or new["state"] == "Failed":
        return ()
    if (before.get("pod"), before.get("time")) == (now.get("pod"), now.get("time")):
        return ()
    return (EmitEvent(type="Warning", reason=now["reason"], message=now["message"]),)


def recovery_events(old: Status, new: Status) -> tuple[Action, ...]:
    """One for a recovery that the status tells of for the first time."""
    last = new.get("lastRecovery")
    if not last or new.get("recoveries", 0) <= old.get("recoveries", 0):
        return ()
    message = (
        f"training went on {last['seconds']} s after {last['worker']} was lost "
        f"({last['cause']}) at step {last['step']}"
    )
    return (EmitEvent(type="Normal", reason="Recovered", message=message),)
