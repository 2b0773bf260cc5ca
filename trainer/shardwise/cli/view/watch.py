"""What `shardwise watch` shows: a picture on a terminal, news in lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from shardwise.cli.view import tasks as of_tasks
from shardwise.cli.view.bars import bar, spark
from shardwise.cli.view.describe import (
    causes,
    goodput_parts,
    last_recovery,
    latest,
    percentage,
    progress_words,
)
from shardwise.cli.view.fields import (
    Object,
    age,
    duration,
    ended,
    name,
    number,
    pick,
    plural,
    short_duration,
    state,
    text,
    time,
)
from shardwise.cli.view.pods import expected, grid, summary, workers
from shardwise.cli.view.rows import of_job
from shardwise.cli.view.sight import Sight
from shardwise.cli.view.style import Paint
from shardwise.cli.view.table import indented, table, wrapped

LABEL = 12
RECOVERIES, EVENTS, TROUBLED = 4, 4, 4
TASKS = 6
"""The place of the column of a job's tasks among those of `fleet`."""


def frame(sight: Sight, now: datetime, width: int, paint: Paint) -> list[str]:
    """One job: how far it is, its loss, its ranks, its recoveries as they happen."""
    job = sight.job
    if job is None:
        return ["waiting for the job"]
    lines = [_title(job, now, paint), *_bar(job, width, paint)]
    message = text(job, "status.message")
    if message and state(job) != "Running":
        lines += wrapped(message, width)
    lines.append("")
    lines += _tasks(job, width, paint) if of_job(job) else _loss(sight, width, paint)
    lines += _ranks(sight, job, width, paint)
    lines += _time(job, paint)
    lines += _recoveries(sight, job, now, paint)
    lines += _events(sight, now, paint)
    if sight.trouble:
        lines += ["", *[paint(line, "red") for line in wrapped(sight.trouble, width, "")]]
    return lines


def _title(job: Object, now: datetime, paint: Paint) -> str:
    start, end = time(pick(job, "status.startTime")), time(pick(job, "status.completionTime"))
    ran = duration(((end or now) - start).total_seconds()) if start else ""
    reason = text(job, "status.reason")
    told = " · ".join(filter(None, [reason, f"{'took' if end else 'for'} {ran}" if ran else ""]))
    head = f"{paint(name(job), 'bold')}  {paint.state(state(job))}"
    return f"{head}  {paint(told, 'dim')}" if told else head


def _bar(job: Object, width: int, paint: Paint) -> list[str]:
    percent = percentage(job, of_job(job)) or 0.0
    done, rest = bar(percent / 100, max(10, min(width - 6, 72)))
    colour = "red" if state(job) in ("Failed", "Invalid") else "green"
    words = progress_words(job)
    return [
        f"{paint(done, colour)}{paint(rest, 'dim')} {percent:3.0f} %",
        *([words] if words else []),
    ]


def _tasks(job: Object, width: int, paint: Paint) -> list[str]:
    """The best task so far, those under way, and failures."""
    tasks = of_job(job)
    lines = of_tasks.picture(tasks, width, paint) if tasks is not None else []
    labels = ["tasks", *[""] * len(lines)]
    return [_labelled(label, line, paint) for label, line in zip(labels, lines, strict=False)]


def _labelled(label: str, text_: str, paint: Paint) -> str:
    return f"{paint(label.ljust(LABEL), 'dim')}{text_}"


def _loss(sight: Sight, width: int, paint: Paint) -> list[str]:
    losses = [loss for _, loss in sight.losses]
    if not losses:
        return []
    finite = sight.finite_losses()
    line = paint(spark(losses, min(60, max(10, width - 40))), "cyan")
    bounds = f"  {finite[0]:.4g} → {finite[-1]:.4g}" if len(finite) > 1 else ""
    return [_labelled("loss", line + bounds, paint)]


def _ranks(sight: Sight, job: Object, width: int, paint: Paint) -> list[str]:
    found = workers(sight.own_pods())
    head = text(job, "status.workers.summary")
    told = [f"{head} ready" if head else ""]
    told += [
        f"{key} {text(job, f'status.workers.{key}')}"
        for key in ("members", "standby", "generation")
        if number(job, f"status.workers.{key}")
    ]
    told.append(summary(found, paint))
    lines = [_labelled("workers", " · ".join(filter(None, told)), paint)]
    wanted = set() if ended(job) else expected(job)
    lines += indented(grid(found, wanted, width - LABEL, paint), " " * LABEL)
    stuck = [w for w in found if w.detail and w.state in ("Pending", "Failed")]
    for worker in stuck[:TROUBLED]:
        on = f" on {worker.node}" if worker.node else ""
        lines.append(f"{' ' * LABEL}{paint(f'{worker.pod}{on}: {worker.detail}', 'yellow')}")
    if len(stuck) > TROUBLED:
        lines.append(f"{' ' * LABEL}… and {len(stuck) - TROUBLED} more")
    return lines


def _time(job: Object, paint: Paint) -> list[str]:
    goodput = text(job, "status.goodput")
    parts = [f"{kind} {short_duration(spent)}" for kind, spent in goodput_parts(job) if spent > 0]
    told = " · ".join(filter(None, [goodput, *parts[:4]]))
    lines = [_labelled("goodput", told, paint)] if told else []
    step = text(job, "status.checkpoint.step")
    error = text(job, "status.checkpoint.error")
    if step or error:
        words = f"step {step}" if step else ""
        lines.append(
            _labelled("checkpoint", " · ".join(filter(None, [words, paint(error, "red")])), paint)
        )
    return lines


def _recoveries(sight: Sight, job: Object, now: datetime, paint: Paint) -> list[str]:
    count, by_cause = number(job, "status.recoveries") or 0, causes(job)
    if not count and not sight.recoveries and not by_cause:
        return []
    told = f"{count:.0f}{f' ({by_cause})' if by_cause else ''}"
    seen = [
        last_recovery({"status": {"lastRecovery": last}}, now)
        for last in sight.recoveries[-RECOVERIES:]
    ]
    return [
        _labelled("recoveries", told, paint),
        *[f"{' ' * LABEL}{paint('↻', 'yellow')} {line}" for line in reversed(seen)],
    ]


def _events(sight: Sight, now: datetime, paint: Paint) -> list[str]:
    lines = []
    for event in reversed(latest(sight.own_events())[-EVENTS:]):
        since = age(event, "lastTimestamp", now).rjust(6)
        colour = "yellow" if text(event, "type") == "Warning" else ""
        words = f"{text(event, 'reason')}: {text(event, 'message')}".replace("\n", " ")
        lines.append(f"{paint(since, 'dim')}      {paint(words, colour)}")
    return ["", *lines] if lines else []


def fleet(jobs: Iterable[Object], now: datetime, width: int, paint: Paint) -> list[str]:
    """All jobs: a line each, those that run first."""
    order = {"Running": 0, "Recovering": 0, "Succeeded": 2, "Failed": 2, "Invalid": 2}
    found = sorted(jobs, key=lambda job: (order.get(state(job), 1), name(job)))
    if not found:
        return ["no jobs"]
    counts: dict[str, int] = {}
    for job in found:
        counts[state(job)] = counts.get(state(job), 0) + 1
    head = " · ".join(f"{count} {paint.state(kind)}" for kind, count in counts.items())
    rows: list[tuple[str, ...]] = []
    for job in found:
        percent = percentage(job, of_job(job)) or 0.0
        rows.append(
            (
                name(job),
                state(job),
                "".join(bar(percent / 100, 20)),
                f"{percent:.0f} %",
                "" if ended(job) else text(job, "status.progress.estimatedRemaining"),
                text(job, "status.workers.summary"),
                _done(job),
                text(job, "status.progress.loss"),
                text(job, "status.recoveries"),
                text(job, "status.reason"),
            )
        )

    def style(heading: str, cell: str) -> str:
        if heading == "STATE":
            return paint.state(cell.strip()) + " " * (len(cell) - len(cell.strip()))
        return paint(cell, "green") if heading == "PROGRESS" else cell

    headings = ["NAME", "STATE", "PROGRESS", "", "ETA", "WORKERS", "TASKS"]
    headings += ["LOSS", "RECOVERIES", "REASON"]
    if not any(map(_done, found)):
        headings.remove("TASKS")
        shown: list[tuple[str, ...]] = [(*row[:TASKS], *row[TASKS + 1 :]) for row in rows]
    else:
        shown = list(rows)
    return [f"{plural(len(found), 'job')}: {head}", "", *table(headings, shown, style)]


def _done(job: Object) -> str:
    """37/100 where the job has many tasks."""
    tasks = of_job(job)
    return f"{tasks.ended}/{tasks.total}" if tasks is not None else ""


def news(before: Object | None, job: Object, now: datetime) -> list[str]:
    """What is new of a job since it was last told of, a line each; progress is not news."""
    told = []
    was = (state(before), text(before, "status.reason")) if before else None
    reason, message = text(job, "status.reason"), text(job, "status.message")
    if was != (state(job), reason) and (before or reason):
        words = " ".join(message.splitlines())
        told.append(
            f"{state(job)}{f' ({reason})' if reason else ''}{f': {words}' if words else ''}"
        )
    if pick(job, "status.lastRecovery") != pick(before, "status.lastRecovery"):
        told.append(f"recovered: {last_recovery(job, now)}")
    if before and text(job, "status.workers.summary") != text(before, "status.workers.summary"):
        told.append(f"workers {text(job, 'status.workers.summary')}")
    step = text(job, "status.checkpoint.step")
    if before and step and step != text(before, "status.checkpoint.step"):
        told.append(f"checkpoint at step {step}")
    tasks = of_job(job)
    if tasks is not None:
        told += of_tasks.news(of_job(before) if before else None, tasks)
    return [f"{name(job)}: {line}" for line in told]


def progress_line(job: Object) -> str:
    """digits: 42 % step 5/10 · …; empty where there is no progress."""
    percent, words = percentage(job, of_job(job)), progress_words(job)
    return f"{name(job)}: {percent:.0f} % {words}" if percent is not None and words else ""
