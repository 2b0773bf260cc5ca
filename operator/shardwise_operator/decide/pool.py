"""Where the job is a pool of tasks: what differs from a group that trains one.

A pool goes on with any number of workers, and each of them leaves a task's group and comes back
for the next. So what a pool lacks counts once it has lacked it for a while. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from shardwise.api.status_tasks import ENDED_TASK_ROWS, MAX_TASK_ROWS
from shardwise.api.types import TaskRow as RowStatus
from shardwise.coordinator.report import TaskReport, TaskRow, TasksReport
from shardwise_operator.decide.acceptance import Acceptance
from shardwise_operator.decide.status import progress_status
from shardwise_operator.observe import Observed

PAUSE = timedelta(seconds=5)
"""That a pool may have no worker at a task, or fewer than it asks for, between two tasks."""
ENDED = ("Succeeded", "Failed", "Stopped")
ROWS_BYTES = 12_288
"""Of JSON: for the rows, and again for the front. With the record, which has 64 KiB at the most,
and the rest of the job it stays below 100 KiB."""
Status = Mapping[str, Any]


def is_pool(observed: Observed, accepted: Acceptance) -> bool:
    """Whether the job has many tasks; known from the status where the spec is not any more."""
    return "tasks" in accepted.trainer or bool(observed.job.status.get("tasks"))


def pause_left(since: datetime | None, now: datetime) -> timedelta:
    """How long what began at `since` may go on before it counts; zero or less: it counts."""
    return PAUSE - (now - (since or now))


def works(observed: Observed, *, was_running: bool) -> bool:
    """Whether workers are at tasks, or about to be."""
    report = observed.report
    if report is None:
        return False
    if report.state == "finished":
        return True
    if not was_running:
        return report.state == "training" and bool(report.members)
    return bool(report.members) or pause_left(observed.idle_since, observed.now) > timedelta()


def at_work(report: TaskReport | None, old: Status) -> str:
    """What the workers do, in numbers."""
    tasks = report.tasks if report is not None else None
    if report is None or tasks is None:
        summary = (old.get("tasks") or {}).get("summary")
        return f"{summary or 'no'} tasks have ended"
    workers = _counted(len(report.members), "worker")
    ended = tasks.succeeded + tasks.failed + tasks.stopped
    if report.members and not tasks.pending and not tasks.running:
        return f"{workers} gathers the results of {tasks.total} tasks"
    line = f"{workers} at {tasks.running} of {tasks.total} tasks; {ended} ended"
    return f"{line}, {tasks.failed} failed" if tasks.failed else line


def shortage(observed: Observed, accepted: Acceptance) -> str | timedelta | None:
    """What to say of a pool that is short of workers, empty where it is not; how long to wait
    before it counts; None where nobody knows."""
    report = observed.report
    if report is None or not observed.settled:
        return None
    there = len(report.connected)
    if there >= accepted.desired:
        return ""
    left = pause_left(observed.short_since, observed.now)
    if left > timedelta():
        return left
    message = f"{there} of {accepted.desired} workers are there"
    if there < accepted.least:
        message += f", fewer than spec.workers.min ({accepted.least})"
    return message


def pool_progress(report: TaskReport) -> dict[str, Any] | None:
    """status.progress: steps over all tasks; the stage counts the tasks."""
    if report.progress is None or report.tasks is None:
        return None
    tasks = report.tasks
    found = progress_status(replace(report.progress, stage=""))
    done = _ended(tasks)
    found["stage"] = f"{done}/{tasks.total} tasks, {tasks.running} running"
    found["percent"] = min(99, found["percent"])
    return found


def tasks_status(report: TaskReport | None, old: Status) -> dict[str, Any] | None:
    """status.tasks, of what the coordinator tells; what a new one does not know any more (hashes,
    the tasks that ended before it) stays as the status has it."""
    before = old.get("tasks") or {}
    tasks = report.tasks if report is not None else None
    if tasks is None:
        return dict(before) or None
    kept = _rows_of(before)
    items = [_row(row, kept) for row in tasks.rows]
    there = {item["name"] for item in items if item}
    items += [
        row
        for row in before.get("items") or ()
        if row.get("state") in ENDED and row["name"] not in there
    ]
    fresh = not tasks.utilization and not (report and report.members)
    return {
        "total": tasks.total,
        "pending": tasks.pending,
        "running": tasks.running,
        "succeeded": tasks.succeeded,
        "failed": tasks.failed,
        "stopped": tasks.stopped,
        "summary": f"{_ended(tasks)}/{tasks.total}",
        "utilization": before.get("utilization") if fresh else f"{tasks.utilization:.3f}",
        "best": _row(tasks.best, kept) if tasks.best else before.get("best"),
        "pareto": _fitting(_row(row, kept) for row in tasks.pareto) or before.get("pareto"),
        "items": _shown(items),
        "record": tasks.record or before.get("record"),
    }


def tasks_at_the_end(tasks: Status | None, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """status.tasks once there is a result: its counts are those of the worker that gathered it,
    which knows of the last tasks even where the operator was away."""
    if tasks is None:
        return None
    found = dict(tasks)
    counts = result.get("tasks")
    if isinstance(counts, Mapping):
        numbers = {
            key: counts[key]
            for key in ("succeeded", "failed", "stopped")
            if type(counts.get(key)) is int and counts[key] >= 0
        }
        total = sum(numbers.values())
        found |= {**numbers, "total": total, "summary": f"{total}/{total}"}
    found |= {"pending": 0, "running": 0}
    found["items"] = [row for row in found.get("items") or () if row.get("state") in ENDED]
    best = result.get("best")
    if isinstance(best, Mapping) and best.get("name") != (found.get("best") or {}).get("name"):
        told = {**best, "metrics": _named(best.get("metrics")), "state": "Succeeded"}
        told["parameters"] = _named(best.get("parameters"))
        found["best"] = _valid(told) or found.get("best")
    return found


def came_to(tasks: Status | None) -> str:
    """The end of a pool in numbers."""
    tasks = tasks or {}
    parts = [f"{tasks.get('succeeded', 0)} of {tasks.get('total', 0)} tasks succeeded"]
    parts += [
        f"{tasks[key]} {words}"
        for key, words in (("failed", "failed"), ("stopped", "were stopped early"))
        if tasks.get(key)
    ]
    line = ", ".join(parts)
    best = tasks.get("best") or {}
    if not best.get("name"):
        return line
    metrics = ", ".join(f"{m['name']} {m['value']}" for m in best.get("metrics") or ())
    return f"{line}; the best is {best['name']}" + (f": {metrics}" if metrics else "")


def _ended(tasks: TasksReport) -> int:
    return tasks.succeeded + tasks.failed + tasks.stopped


def _rows_of(before: Status) -> dict[str, Status]:
    """The rows that the status has, by name."""
    best = before.get("best")
    rows = [*(before.get("items") or ()), *(before.get("pareto") or ()), *([best] if best else ())]
    return {str(row.get("name")): row for row in rows}


def _row(row: TaskRow, kept: Mapping[str, Status]) -> dict[str, Any]:
    """A row of the status; empty where it has no form."""
    found = _valid(
        {
            "name": row.name,
            "state": row.state,
            "parameters": _named(row.parameters),
            "metrics": _named(row.metrics),
            "weightsSha256": row.weights_sha256 or None,
            "step": row.step or None,
            "totalSteps": row.total_steps or None,
            "workers": row.workers or None,
            "seconds": f"{row.seconds:.1f}" if row.seconds else None,
            "reason": row.reason or None,
            "message": row.message or None,
        }
    )
    before = kept.get(row.name) or {}
    if found and before.get("state") == row.state and row.state in ENDED:
        missing = {key: value for key, value in before.items() if key not in found}
        if "weightsSha256" in missing:  # a new coordinator's: it has the objectives alone
            missing["metrics"] = before.get("metrics") or found.get("metrics")
        return {**found, **missing}
    return found


def _named(figures: object) -> list[dict[str, str]]:
    if not isinstance(figures, Mapping):
        return []
    listed = {str(name)[:63]: value for name, value in figures.items() if name}
    return [
        {"name": name, "value": f"{value:.6g}" if isinstance(value, float) else str(value)}
        for name, value in listed.items()
    ]


def _valid(row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return RowStatus.model_validate(row).to_json()
    except ValueError:  # Of a worker of another version: the counts can still be told.
        return {}


def _shown(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of these rows as many as there is room for: those under way, then those that have ended, of
    which the first few have their place whatever there is of the others."""
    found = [row for row in rows if row]
    ended = [row for row in found if row["state"] in ENDED]
    running = [row for row in found if row["state"] not in ENDED]
    first, others = ended[:ENDED_TASK_ROWS], ended[ENDED_TASK_ROWS:]
    fitting = _fitting([*first, *running, *others][:MAX_TASK_ROWS])
    return sorted(fitting, key=lambda row: row["state"] in ENDED)


def _fitting(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first rows, as many as there is room for."""
    found, length = [], 0
    for row in rows:
        length += len(str(row))
        if length > ROWS_BYTES:
            break
        if row:
            found.append(row)
    return found


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
