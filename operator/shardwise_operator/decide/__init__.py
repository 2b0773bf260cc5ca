"""The decision: what to do and to tell, from what is observed, and from nothing else.

The middle step of a reconcile. Pure: no I/O, no clock, no memory; the same observation gives the
same decision, and once its actions are done and its status is written, deciding again gives no
more actions. One module beside this one per policy; `work` puts them together for a live job.
"""

from __future__ import annotations

from shardwise.api import conditions as c
from shardwise.api.types import MANAGER
from shardwise_operator.actions import Decision
from shardwise_operator.decide.acceptance import accept
from shardwise_operator.decide.cleanup import after_the_end, being_deleted, left_alone
from shardwise_operator.decide.conditions import condition_true_since
from shardwise_operator.decide.trouble import status_refused
from shardwise_operator.decide.work import Work, invalid
from shardwise_operator.observe import Observed

__all__ = ["Decision", "decide"]


def decide(observed: Observed) -> Decision:
    """What follows from what is observed."""
    job = observed.job
    if job.deleting:
        return being_deleted(observed)
    manager = (job.manifest.get("spec") or {}).get("managedBy")
    if isinstance(manager, str) and manager != MANAGER:
        return left_alone(observed, manager)
    for type_ in (c.SUCCEEDED, c.FAILED):
        if condition_true_since(job.status.get("conditions"), type_) is not None:
            return after_the_end(observed, type_)
    if observed.status_refused:
        return status_refused(observed)
    accepted = accept(observed)
    if not accepted.accepted and not accepted.started:
        return invalid(observed, accepted)
    return Work(observed, accepted).decide()
