"""What a local run tells where nothing can be drawn: a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection

from shardwise.coordinator.report import Progress, TaskReport, TasksReport

LINE_SECONDS = 5.0


def lines(name: str, aims: Collection[str] = ()) -> Callable[[TaskReport], None]:
    """A function that tells of each report of the job `name` that is due, on standard error.

    Args:
        aims: the figures by which its tasks are compared, where it has many.
    """
    last = -LINE_SECONDS

    def show(report: TaskReport) -> None:
        nonlocal last
        moment, ended = time.monotonic(), report.state in ("finished", "failed")
        if moment - last < LINE_SECONDS and not ended:
            return
        last = moment
        if report.tasks is not None and report.progress is not None:
            text = of_tasks(report.tasks, report.progress, aims)
        elif report.progress is None:
            text = _waiting(report)
        else:
            now = report.progress
            # As in a cluster: what comes after the training is not done yet.
            most = 99 if now.stage and report.state != "finished" else 100
            percent = min(most, 100 * now.step // now.total_steps)
            text = f"{percent} % {describe(report)}"
        print(f"{name}: {text}", file=sys.stderr, flush=True)

    return show


def _waiting(report: TaskReport) -> str:
    return f"{len(report.connected)} of {report.workers} workers are here"


def of_tasks(tasks: TasksReport, progress: Progress | None, aims: Collection[str] = ()) -> str:
    """37/100 tasks · 4 running · 2 failed · best task-7 accuracy 0.9806 · 12 s left"""
    ended = tasks.succeeded + tasks.failed + tasks.stopped
    parts = [f"{ended}/{tasks.total} tasks"]
    parts += [
        f"{count} {word}"
        for count, word in (
            (tasks.running, "running"),
            (tasks.stopped, "stopped"),
            (tasks.failed, "failed"),
        )
        if count
    ]
    if tasks.best is not None:
        shown = {name: value for name, value in tasks.best.metrics.items() if name in aims}
        told = ", ".join(f"{name} {value:.6g}" for name, value in shown.items())
        parts.append(f"best {tasks.best.name}: {told}")
    if progress is not None and progress.stage and not progress.stage.startswith("tasks"):
        parts.append(f"{progress.stage}, step {progress.step}/{progress.total_steps}")
    if progress is not None and progress.eta_seconds is not None and ended < tasks.total:
        parts.append(f"{progress.eta_seconds:.0f} s left")
    return " · ".join(parts)


def describe(report: TaskReport) -> str:
    """Step, loss, rate and remaining time in words; of many tasks, how many have ended."""
    now = report.progress
    if now is None:
        return _waiting(report)
    if report.tasks is not None:
        return of_tasks(report.tasks, now)
    parts = [now.stage] if now.stage and report.state != "finished" else []
    parts.append(f"step {now.step}/{now.total_steps}")
    if now.eta_seconds is not None and now.step < now.total_steps:
        parts.append(f"{now.eta_seconds:.0f} s left")
    parts.append(f"loss {now.loss:.4f}")
    if "accuracy" in now.metrics:
        parts.append(f"accuracy {now.metrics['accuracy']:.2%}")
    if now.samples_per_second:
        parts.append(f"{now.samples_per_second:,.0f} samples/s")
    return " · ".join(parts)
