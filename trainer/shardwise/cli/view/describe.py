"""All that is known of a job, for people: `shardwise describe`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from shardwise.cli.view.bars import bar
from shardwise.cli.view.fields import (
    Object,
    age,
    ended,
    items,
    name,
    number,
    pick,
    plural,
    short_duration,
    size,
    state,
    text,
    time,
)
from shardwise.cli.view.fields import (
    duration as words,
)
from shardwise.cli.view.pods import expected, grid, summary, workers, workers_table
from shardwise.cli.view.rows import Tasks, of_job
from shardwise.cli.view.style import PLAIN, Paint
from shardwise.cli.view.table import indented, table
from shardwise.cli.view.tasks import counts_words, described, fraction
from shardwise.cli.view.visible import visible_all

LABEL = 14
CHANGES = frozenset({"Joined", "Resized"})
"""Causes of a change of the group that are no recoveries."""
TASKS_STAGE = "tasks"
"""How the stage of a job begins that only counts its tasks."""
EVENTS = 15


def describe(
    job: Object, pods: Sequence[Object], events: Sequence[Object], now: datetime, paint: Paint
) -> list[str]:
    """The whole description."""
    job, pods, events = visible_all(job), visible_all(list(pods)), visible_all(list(events))
    parts = (
        _head(job, now, paint),
        _task(job),
        _progress(job, now, paint),
        _tasks(job, paint),
        _workers(job, pods, now, paint),
        _recoveries(job, now),
        _goodput(job),
        _checkpoint(job, now, paint),
        _result(job),
        compressed(job),
        _last_failure(job, now, paint),
        _conditions(job, now, paint),
        _events(events, now, paint),
    )
    return [line for part in parts for line in part]


def _row(label: str, *values: str) -> list[str]:
    """A label and its values, one a line; nothing where there are none."""
    shown = [value for value in values if value]
    heads = [f"{label}:", *[""] * len(shown)]
    return [f"{head:<{LABEL}}{value}" for head, value in zip(heads, shown, strict=False)]


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))


def _head(job: Object, now: datetime, paint: Paint) -> list[str]:
    since = age(job, "metadata.creationTimestamp", now)
    reason = text(job, "status.reason")
    return [
        *_row("Name", name(job)),
        *_row("Namespace", text(job, "metadata.namespace")),
        *_row("State", _joined(paint.state(state(job)), reason)),
        *_row("Message", *text(job, "status.message").splitlines()),
        *_row("Created", f"{since} ago" if since else "", _ran(job, now)),
    ]


def _ran(job: Object, now: datetime) -> str:
    start, end = time(pick(job, "status.startTime")), time(pick(job, "status.completionTime"))
    if start is None:
        return ""
    took = words(((end or now) - start).total_seconds())
    return f"ended after {took}" if end else f"started {took} ago"


def _task(job: Object) -> list[str]:
    trainer = pick(job, "spec.trainer") or {}
    length = next(
        (f"{trainer[unit]} {unit}" for unit in ("epochs", "steps") if unit in trainer), ""
    )
    parameters = trainer.get("parameters") or {}
    return [
        *_row("Entrypoint", text(trainer, "entrypoint")),
        *_row("Image", text(trainer, "image")),
        *_row(
            "Training",
            _joined(
                length,
                f"batches of {text(trainer, 'batchSize', '?')}",
                f"{text(trainer, 'shards', '?')} shards",
                f"seed {text(trainer, 'seed', '0')}",
            ),
        ),
        *_row("Parameters", ", ".join(f"{key}={value}" for key, value in parameters.items())),
    ]


def progress_words(job: Object) -> str:
    """compression: prune · step 5/10 · epoch 2 · 40s left · loss 0.1 · 12,345 samples/s; of many
    tasks 37/100 tasks · 4 running · 40s left · 12,345 samples/s"""
    progress: Any = pick(job, "status.progress") or {}
    rate, left = number(progress, "samplesPerSecond"), text(progress, "estimatedRemaining")
    done, tasks = ended(job), of_job(job)
    if tasks is not None:
        stage, step = text(progress, "stage"), number(progress, "step")
        shared = stage and not stage.startswith(TASKS_STAGE) and not done
        return _joined(
            counts_words(tasks, PLAIN, ended=done),
            f"{stage}, step {step or 0:,.0f}" if shared else "",
            f"{left} left" if left and not done else "",
            f"{rate:,.0f} samples/s" if rate and not done else "",
        )
    if number(progress, "step") is None:
        return ""
    loss = number(progress, "loss")
    return _joined(
        text(progress, "stage"),
        f"step {number(progress, 'step'):,.0f}/{number(progress, 'totalSteps') or 0:,.0f}",
        f"epoch {text(progress, 'epoch')}" if text(progress, "epoch") and not done else "",
        f"{left} left" if left and not done else "",
        f"loss {loss:.4g}" if loss is not None else "",
        f"{rate:,.0f} samples/s" if rate and not done else "",
    )


def percentage(job: Object, tasks: Tasks | None) -> float | None:
    """How far the job is: by its tasks, where it has many, for their lengths are not known."""
    return number(job, "status.progress.percent") if tasks is None else 100 * fraction(tasks)


def _tasks(job: Object, paint: Paint) -> list[str]:
    tasks = of_job(job)
    if tasks is None:
        return []
    utilization = number(job, "status.tasks.utilization")
    return [
        *_row(
            "Tasks",
            counts_words(tasks, paint),
            f"workers at tasks {utilization:.1%} of their time" if utilization is not None else "",
        ),
        *indented(described(tasks, paint)),
    ]


def _progress(job: Object, now: datetime, paint: Paint) -> list[str]:
    percent = percentage(job, of_job(job))
    if percent is None:
        return []
    done, rest = bar(percent / 100, 24)
    told = age(job, "status.progress.lastUpdateTime", now)
    return _row(
        "Progress",
        f"{paint(done, 'green')}{paint(rest, 'dim')} {percent:.0f} %",
        _joined(progress_words(job), f"told {told} ago" if told and not ended(job) else ""),
    )


def _workers(job: Object, pods: Sequence[Object], now: datetime, paint: Paint) -> list[str]:
    status: Any = pick(job, "status.workers") or {}
    bounds = [
        f"{key} {text(status, key)}"
        for key in ("min", "max", "members", "generation")
        if text(status, key)
    ]
    standby = number(status, "standby")
    ready = text(status, "summary") or f"0/{text(job, 'spec.workers.replicas', '1')}"
    found = workers(pods)
    lines = _row(
        "Workers",
        _joined(f"{ready} ready", *bounds, f"{standby:.0f} standby" if standby else ""),
        summary(found, paint),
    )
    if len(found) > 64:  # A row each would hide the rest; those in trouble get one.
        lines += indented(grid(found, expected(job), 100, paint))
        found = [w for w in found if w.state not in ("Running", "Succeeded")][:64]
    return lines + (indented(workers_table(found, now, paint)) if found else [])


def causes(job: Object) -> str:
    """Killed 2, Hung 1: of the recoveries; workers that joined, or were scaled away, are none."""
    return ", ".join(
        f"{text(part, 'cause')} {text(part, 'count')}"
        for part in items(job, "status.recoveriesByCause")
        if text(part, "cause") not in CHANGES
    )


def last_recovery(job: Object, now: datetime) -> str:
    """digits-2 Killed at step 40, went on after 0.4s, 2m ago"""
    last = pick(job, "status.lastRecovery")
    if not last:
        return ""
    took, since = number(last, "seconds"), age(last, "time", now)
    return ", ".join(
        filter(
            None,
            (
                f"{text(last, 'worker', 'a worker')} {text(last, 'cause')}".strip()
                + (f" at step {text(last, 'step')}" if text(last, "step") else ""),
                f"went on after {short_duration(took)}" if took is not None else "",
                f"{since} ago" if since else "",
            ),
        )
    )


def _recoveries(job: Object, now: datetime) -> list[str]:
    count, by_cause = text(job, "status.recoveries"), causes(job)
    last, lost = last_recovery(job, now), number(job, "status.lostSteps")
    restarts: Any = pick(job, "status.restarts") or {}
    allowed, window = (
        text(job, "spec.restartPolicy.maxRestarts"),
        number(job, "spec.restartPolicy.windowSeconds"),
    )
    budget = text(restarts, "inWindow")
    if budget and allowed:
        budget = f"{budget} of {allowed} allowed" + (f" in {words(window)}" if window else "")
    elif budget:
        budget = f"{budget} count now"
    return [
        *_row(
            "Recoveries",
            f"{count}{f' ({by_cause})' if by_cause else ''}" if count else by_cause,
            f"last: {last}" if last else "",
            f"{plural(int(lost), 'step')} done again" if lost else "",
        ),
        *_row("Restarts", _joined(text(restarts, "total"), budget)),
    ]


def goodput_parts(job: Object) -> list[tuple[str, float]]:
    """Kinds of time and their seconds, the longest first."""
    parts = [
        (text(part, "kind"), number(part, "seconds") or 0.0)
        for part in items(job, "status.goodputSeconds")
    ]
    return sorted(parts, key=lambda part: -part[1])


def _goodput(job: Object) -> list[str]:
    goodput, parts = text(job, "status.goodput"), goodput_parts(job)
    total = sum(seconds for _, seconds in parts)
    if not total:
        return _row("Goodput", goodput)
    rows = [
        (kind, short_duration(seconds), f"{seconds / total:.1%}", bar(seconds / total, 20)[0])
        for kind, seconds in parts
        if seconds > 0
    ]
    return [*_row("Goodput", goodput), *indented(table(("KIND", "TIME", "SHARE", ""), rows))]


def _checkpoint(job: Object, now: datetime, paint: Paint) -> list[str]:
    found = pick(job, "status.checkpoint")
    if not found:
        asked = pick(job, "spec.checkpoint")
        return _row("Checkpoint", "none yet" if asked else "none asked for (spec.checkpoint)")
    since, count, took = age(found, "time", now), number(found, "bytes"), number(found, "seconds")
    error = text(found, "error")
    return _row(
        "Checkpoint",
        _joined(
            f"step {text(found, 'step')}" if text(found, "step") else "",
            f"{since} ago" if since else "",
            size(count) if count is not None else "",
            f"took {short_duration(took)}" if took is not None else "",
        ),
        paint(f"the last attempt failed: {error}", "red") if error else "",
    )


def _result(job: Object) -> list[str]:
    result = pick(job, "status.result")
    if not result:
        return []
    took, rate = number(result, "seconds"), number(result, "samplesPerSecond")
    metrics = [f"{text(m, 'name')} {text(m, 'value')}" for m in items(result, "metrics")]
    volume = ", ".join(pick(job, "spec.output.volume") or {}) or "the pod's own (spec.output)"
    path = text(result, "path")
    return _row(
        "Result",
        _joined(
            f"{text(result, 'steps')} steps" if text(result, "steps") else "",
            f"in {short_duration(took)}" if took is not None else "",
            f"{rate:,.0f} samples/s" if rate else "",
        ),
        ", ".join(metrics),
        f"{path} on the volume: {volume}" if path else "",
        *[
            f"{key} {text(result, key)}"
            for key in ("weightsSha256", "optimizerSha256")
            if text(result, key)
        ],
    )


def compressed(job: Object) -> list[str]:
    """The model before and after each step of a compression, and the files that it left."""
    return _compression(job) + _artifacts(job)


def _compression(job: Object) -> list[str]:
    rows = [
        (
            text(row, "name"),
            text(row, "metric"),
            size(number(row, "bytes") or 0) if number(row, "bytes") is not None else "",
            *(
                f"{count:,.0f}" if (count := number(row, key)) is not None else ""
                for key in ("parameters", "nonzeros", "macs")
            ),
            f"{text(row, 'latencyMilliseconds')} ms" if text(row, "latencyMilliseconds") else "",
            text(row, "note").replace("\n", " "),
        )
        for row in items(job, "status.compression.rows")
    ]
    if not rows:
        return []
    undone = text(job, "status.compression.undone")
    headings = ("STEP", "METRIC", "SIZE", "PARAMETERS", "NONZEROS", "MACS", "LATENCY", "NOTE")
    return [
        *_row("Compression", f"the guard took step {undone} back" if undone else "done"),
        *indented(table(headings, rows)),
    ]


def _artifacts(job: Object) -> list[str]:
    rows = [
        (
            text(found, "name"),
            text(found, "path") or text(found, "where"),
            size(number(found, "bytes") or 0) if number(found, "bytes") is not None else "",
            text(found, "sha256"),
        )
        for found in items(job, "status.artifacts")
    ]
    if not rows:
        return []
    return ["Artifacts:", *indented(table(("NAME", "WHERE", "SIZE", "SHA256"), rows))]


def _last_failure(job: Object, now: datetime, paint: Paint) -> list[str]:
    failure = pick(job, "status.lastFailure")
    if not failure:
        return []
    since = age(failure, "time", now)
    where = [
        f"{label} {text(failure, key)}"
        for key, label in (
            ("pod", "pod"),
            ("rank", "rank"),
            ("node", "node"),
            ("exitCode", "exit code"),
        )
        if text(failure, key)
    ]
    tail = text(failure, "logTail").rstrip().splitlines()
    return [
        *_row(
            "Last failure",
            _joined(paint(text(failure, "reason"), "red"), f"{since} ago" if since else ""),
            _joined(*where),
            *text(failure, "message").splitlines(),
        ),
        *[f"  {paint('│', 'dim')} {line}" for line in tail],
    ]


def _conditions(job: Object, now: datetime, paint: Paint) -> list[str]:
    found = items(job, "status.conditions")
    if not found:
        return []
    rows = [
        (
            text(entry, "type"),
            text(entry, "status"),
            text(entry, "reason"),
            age(entry, "lastTransitionTime", now),
            text(entry, "message").replace("\n", " "),
        )
        for entry in found
    ]

    def style(heading: str, cell: str) -> str:
        return paint(cell, "dim") if heading == "STATUS" and cell.strip() == "False" else cell

    return [
        "Conditions:",
        *indented(table(("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), rows, style)),
    ]


def latest(events: Sequence[Object]) -> list[Object]:
    """Events in the order in which they last happened; within a second, were last written."""

    def order(event: Object) -> tuple[str, float]:
        return text(event, "lastTimestamp"), number(event, "metadata.resourceVersion") or 0.0

    return sorted(events, key=order)


def _events(events: Sequence[Object], now: datetime, paint: Paint) -> list[str]:
    if not events:
        return []
    rows = [
        (
            age(event, "lastTimestamp", now),
            text(event, "type"),
            text(event, "reason"),
            text(event, "count", "1"),
            text(event, "message").replace("\n", " "),
        )
        for event in latest(events)[-EVENTS:]
    ]

    def style(heading: str, cell: str) -> str:
        return paint(cell, "yellow") if heading == "TYPE" and cell.strip() == "Warning" else cell

    head = "Events:" if len(events) <= EVENTS else f"Events (the last {EVENTS} of {len(events)}):"
    return [head, *indented(table(("AGE", "TYPE", "REASON", "COUNT", "MESSAGE"), rows, style))]
