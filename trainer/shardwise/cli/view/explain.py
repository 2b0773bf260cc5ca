"""Why a job is as it is, and what to do: `shardwise explain`.

The words are the operator's own: its decision puts them into the conditions, the reason and the
message. Added here is only what it cannot say: that it has not looked, and which command is next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from shardwise.api import conditions as c
from shardwise.cli.names import MANAGER
from shardwise.cli.view.describe import latest, progress_words
from shardwise.cli.view.fields import (
    Object,
    age,
    condition,
    items,
    name,
    pick,
    state,
    text,
    time,
)
from shardwise.cli.view.pods import Worker, workers
from shardwise.cli.view.rows import of_job
from shardwise.cli.view.style import Paint
from shardwise.cli.view.table import indented, table, wrapped
from shardwise.cli.view.tasks import FAILED, best_words, failures, why

UNSEEN_SECONDS = 15.0
EVENTS = 5

_LOGS = "{program} logs {job} --tail 50"
_DESCRIBE = "kubectl describe pod {pod}"
_WATCH = "{program} watch {job}"
_NEXT: Mapping[str, str] = {
    c.USER_CODE_FAILED: _LOGS,
    c.NOT_FINITE: _LOGS,
    c.WORKER_LOST: _LOGS,
    c.OUTPUT_FAILED: _LOGS,
    c.CHECKPOINT_FAILED: _LOGS,
    c.REFUSED_WORKER: _LOGS,
    c.STALLED: _LOGS,
    c.RESTART_BUDGET_EXCEEDED: _LOGS,
    c.OUT_OF_MEMORY: "kubectl top pod -l shardwise.dev/job-name={job}",
    c.IMAGE_PULL_FAILED: _DESCRIBE,
    c.CONTAINER_CONFIG_ERROR: _DESCRIBE,
    c.UNSCHEDULABLE: _DESCRIBE,
    c.EVICTED: _DESCRIBE,
    c.QUOTA_EXCEEDED: "kubectl describe resourcequota",
    c.FORBIDDEN: "{program} doctor",
    c.CONFIG_MAP_MISSING: "kubectl create configmap NAME --from-file=FOLDER",
    c.SUSPENDED: "{program} resume {job}",
    c.INVALID_SPEC: "{program} submit FILE --dry-run=client",
    c.STARTUP_DEADLINE_EXCEEDED: "{program} describe {job}",
    c.ACTIVE_DEADLINE_EXCEEDED: "{program} describe {job}",
    c.TRAINING: _WATCH,
    c.RECOVERING: _WATCH,
    c.WAITING_FOR_WORKERS: _WATCH,
    c.SUSPENDING: _WATCH,
}
"""The command that shows more, or that follows, by reason."""
_ABNORMAL = {
    c.ACCEPTED: "False",
    c.PROGRESSING: "False",
    c.CHECKPOINTED: "False",
    c.DEGRADED: "True",
    c.FAILED: "True",
}
"""The status in which a condition is told of though the job's reason is another."""
_ODD = frozenset({c.REPLICAS_CLAMPED})
"""Reasons that are told of whatever the condition's status."""


def explain(
    job: Object,
    pods: Sequence[Object],
    events: Sequence[Object],
    now: datetime,
    *,
    width: int,
    paint: Paint,
    program: str = "shardwise",
) -> list[str]:
    """What the job waits for and why, in the operator's words; then what backs them."""
    unseen = not_looked_at(job, now, program)
    reason = text(job, "status.reason")
    found = workers(pods)
    head = f"{name(job)} is {paint.state(state(job))}{f': {reason}' if reason else ''}"
    lines = [head]
    if unseen:
        lines += ["", *wrapped(unseen, width)]
    message = text(job, "status.message")
    if message:
        lines += ["", *wrapped(message, width)]
    told = progress_words(job)
    if told:
        lines += ["", f"  {told}"]
    tasks = of_job(job)
    if tasks is not None and tasks.best is not None:
        lines += [f"  best {best_words(tasks)}"]
    parts = (
        ("Also:", _also(job, message, width)),
        ("Last failure:", _failure(job, now, width)),
        ("Workers in trouble:", _in_trouble(found)),
        ("Tasks that failed:", _failed_tasks(job, width)),
        ("What happened:", _happened(events, now, message)),
        ("Next:", [] if unseen else _next(job, reason, found, program)),
    )
    for title, part in parts:
        if part:
            lines += ["", title, *part]
    return lines


def not_looked_at(job: Object, now: datetime, program: str) -> str:
    """Why the status cannot be trusted: nobody has looked at the job as it is now."""
    manager = text(job, "spec.managedBy")
    if manager and manager != MANAGER:
        return f"spec.managedBy is {manager}: the Shardwise operator leaves this job alone."
    generation = pick(job, "metadata.generation") or 0
    seen = pick(job, "status.observedGeneration") or 0
    if generation <= seen:
        return ""
    what = "this job" if not seen else "the last change of its spec"
    created = time(pick(job, "metadata.creationTimestamp"))
    if not seen and created and (now - created).total_seconds() < UNSEEN_SECONDS:
        since = age(job, "metadata.creationTimestamp", now)
        return f"The operator has not looked at {what} yet; it is {since} old."
    return (
        f"The operator has not looked at {what} (generation {generation}, seen {seen}): it may be "
        f"down, or not watch this namespace. `{program} doctor` tells."
    )


def _also(job: Object, message: str, width: int) -> list[str]:
    """Conditions that are not as they should be and say something else than the message."""
    lines = []
    for entry in items(job, "status.conditions"):
        type_, words = text(entry, "type"), text(entry, "message")
        odd = _ABNORMAL.get(type_) == text(entry, "status") or text(entry, "reason") in _ODD
        if type_ == c.PROGRESSING and state(job) != "Running":
            continue  # It follows from the state.
        if odd and words and words != message:
            lines += wrapped(
                f"{type_} is {text(entry, 'status')} ({text(entry, 'reason')}): {words}", width
            )
    return lines


def _failure(job: Object, now: datetime, width: int) -> list[str]:
    failure = pick(job, "status.lastFailure")
    if not failure:
        return []
    words, since = text(failure, "message"), age(failure, "time", now)
    message = [] if words == text(job, "status.message") else [words]
    head = f"{text(failure, 'reason')}{f', {since} ago' if since else ''}: "
    tail = text(failure, "logTail").rstrip().splitlines()[-8:]
    lines = wrapped(head + message[0], width) if message else []
    return lines + [f"  │ {line}" for line in tail]


def _in_trouble(found: Sequence[Worker]) -> list[str]:
    stuck = [w for w in found if w.state in ("Pending", "Failed") and w.detail]
    rows = [(w.pod, w.state, w.detail) for w in stuck[:EVENTS]]
    more = [f"  … and {len(stuck) - EVENTS} more"] if len(stuck) > EVENTS else []
    return indented(table(("POD", "STATE", "WHY"), rows)) + more if rows else []


def _failed_tasks(job: Object, width: int) -> list[str]:
    tasks = of_job(job)
    if tasks is None:
        return []
    shown = failures(tasks)[:FAILED]
    more = tasks.counts.get("failed", 0) - len(shown)
    lines = [line for row in shown for line in wrapped(why(row), width)]
    return lines + (
        [f"  … and {more} more: see tasks.csv in the output folder"] if more > 0 else []
    )


def _happened(events: Sequence[Object], now: datetime, message: str) -> list[str]:
    rows = []
    for event in latest(events)[-EVENTS:]:
        words = text(event, "message")
        said = "as above" if words == message else words.replace("\n", " ")
        rows.append((f"{age(event, 'lastTimestamp', now)} ago", text(event, "reason"), said))
    return indented(table(("WHEN", "EVENT", "WHAT"), rows)) if rows else []


def _next(job: Object, reason: str, found: Sequence[Worker], program: str) -> list[str]:
    command = _NEXT.get(reason)
    if state(job) == "Succeeded":
        command = "{program} describe {job}"
    if not command and condition(job, c.FAILED).get("status") == "True":
        command = _LOGS
    if command == _DESCRIBE and not found:  # It could not even be created.
        command = "{program} describe {job}"
    if not command:
        return []
    stuck = [w for w in found if w.state in ("Pending", "Failed")]
    told = [w for w in stuck if w.detail]
    pod = (told or stuck or list(found))[0].pod if found else ""
    return [f"  {command.format(program=program, job=name(job), pod=pod)}"]
