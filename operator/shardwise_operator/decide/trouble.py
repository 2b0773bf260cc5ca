"""Where no decision can be made about a job, or none can be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from shardwise.api import conditions as c
from shardwise_operator.actions import Action, CloseTask, Decision
from shardwise_operator.decide.conditions import Conditions, condition_true_since, format_time
from shardwise_operator.decide.events import state_events
from shardwise_operator.decide.status import tidy
from shardwise_operator.observe import JobView, Observed

KEPT = ("startTime", "specSha256", "workers", "restarts")
"""What a status that was refused keeps: it is small."""


def reconcile_failed(job: JobView, error: Exception, now: datetime) -> Decision:
    """What is told of a job that no decision can be made about, once for each cause."""
    what = " ".join(str(error).split())[:300]
    message = (
        f"the operator cannot work on this job: {type(error).__name__}: {what}; it is tried again; "
        "correct what the message names, or report it with the operator's log"
    )
    old = job.status
    told = (old.get("reason"), old.get("message")) == (c.RECONCILE_FAILED, message)
    ended = any(
        condition_true_since(old.get("conditions"), type_) is not None
        for type_ in (c.SUCCEEDED, c.FAILED)
    )
    if told or ended:
        return Decision(actions=(), status=None, requeue_after=None, why=(message,))
    conditions = Conditions(old.get("conditions"), job.generation, now)
    conditions.set(c.DEGRADED, True, c.RECONCILE_FAILED, message)
    new: Mapping[str, Any] = {
        **old,
        "conditions": conditions.listed(),
        "state": old.get("state") or "Waiting",
        "reason": c.RECONCILE_FAILED,
        "message": message,
    }
    return _decision(old, tidy(new), (), message)


def status_refused(observed: Observed) -> Decision:
    """The job fails: of one that nothing can be told of, nobody would know what it does."""
    job = observed.job
    message = (
        f"the API server does not take the job's status: {observed.status_refused}; make the job "
        "smaller (spec.tasks, spec.template), upgrade the CRD with the operator, and submit it anew"
    )
    conditions = Conditions((), job.generation, observed.now)
    conditions.set(c.FAILED, True, c.STATUS_REFUSED, message)
    conditions.set(c.SUCCEEDED, False, c.STATUS_REFUSED, message)
    kept = {key: job.status[key] for key in KEPT if key in job.status}
    if "workers" in kept:
        kept["workers"] = {k: v for k, v in kept["workers"].items() if k != "names"}
    new = {
        **kept,
        "conditions": conditions.listed(),
        "observedGeneration": job.generation,
        "state": "Failed",
        "reason": c.STATUS_REFUSED,
        "message": message,
        "completionTime": format_time(observed.now),
    }
    close = CloseTask(reason=c.STATUS_REFUSED, message=message)
    return _decision(job.status, tidy(new), (close,) if observed.report else (), message)


def _decision(
    old: Mapping[str, Any], new: Mapping[str, Any], actions: tuple[Action, ...], why: str
) -> Decision:
    return Decision(
        actions=(*actions, *state_events(old, new)), status=new, requeue_after=None, why=(why,)
    )
