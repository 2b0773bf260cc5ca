"""What a pool tells: its tasks in counts and a few rows, and all as one task's report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import islice

from shardwise.coordinator.pool import Pool, Running
from shardwise.coordinator.pool_stretches import SHARED_TRAINING
from shardwise.coordinator.report import (
    Loss,
    Progress,
    TaskReport,
    TaskRow,
    TasksReport,
    TaskState,
)

ROWS = 20
FRONT = 32
LOSSES = 16


def report(pool: Pool, connected: Collection[str], now: float) -> TaskReport:
    """The pool as it is now; times are in the clock of its events."""
    running = pool.running.values()
    reports = [each.report for each in running if each.report is not None]
    recoveries = Counter(pool.assignment.recoveries) + pool.spent.recoveries
    seconds = Counter(pool.assignment.seconds) + Counter(pool.spent.seconds)
    for each in reports:
        recoveries.update(each.recoveries)
        seconds.update(each.seconds)
    losses: list[Loss] = sorted(
        (loss for each in reports for loss in each.losses), key=lambda loss: loss.at
    )
    at_tasks = sorted(worker for each in running for worker in each.workers)
    recovered = [each.recovery_seconds for each in reports if each.recovery_seconds is not None]
    return TaskReport(
        state=_state(pool),
        generation=max([1, pool.spent.generations, *(each.generation for each in reports)]),
        connected=tuple(sorted(connected)),
        workers=pool.assignment.workers,
        progress=_progress(pool, now),
        failure=pool.failure,
        result=pool.result,
        members=tuple(at_tasks),
        standbys=tuple(sorted(pool.idle)),
        waiting=_waiting(pool),
        recoveries=dict(recoveries),
        losses=tuple(losses[-LOSSES:]),
        recovery_seconds=recovered[-1] if recovered else None,
        seconds=dict(seconds),
        lost_steps=pool.assignment.lost_steps
        + pool.spent.lost_steps
        + sum(each.lost_steps for each in reports),
        tasks=tasks(pool),
    )


def tasks(pool: Pool) -> TasksReport:
    """The tasks in counts and in a few rows."""
    table, counts, best = pool.table, pool.table.counts, pool.table.standing.best
    begun = sum(counts.values())
    shown = [_row(pool, each) for each in islice(pool.running.values(), ROWS) if each.planned]
    ended = [table.rows[trial] for trial in reversed(table.ended)]
    several = len(table.objectives) > 1
    return TasksReport(
        total=pool.schedule.total,
        pending=pool.schedule.total - begun + counts["Pending"],
        running=counts["Running"],
        succeeded=counts["Succeeded"],
        failed=counts["Failed"],
        stopped=counts["Stopped"],
        rows=tuple([*shown, *ended][:ROWS]),
        best=None if best is None else pool.table.rows[best],
        pareto=tuple(pool.table.rows[t] for t in pool.table.standing.front[:FRONT])
        if several
        else (),
        record=pool.schedule.record(),
        utilization=round(pool.spent.utilization, 4),
    )


def _row(pool: Pool, running: Running) -> TaskRow:
    """The row of a task under way, as its group tells."""
    assert running.planned is not None
    row, report = pool.table.rows[running.planned.trial], running.report
    row = replace(row, workers=len(running.workers))
    if report is None or report.progress is None:
        return row
    now = report.progress
    return replace(row, step=now.step, total_steps=now.total_steps, metrics=dict(now.metrics))


def _state(pool: Pool) -> TaskState:
    if pool.result is not None:
        return "finished"
    if pool.failure is not None:
        return "failed"
    states = {each.report.state for each in pool.running.values() if each.report is not None}
    if "training" in states or "finished" in states:
        return "training"
    if "forming" in states:
        return "forming"
    return "training" if pool.running and pool.table.counts["Succeeded"] else "waiting"


def _progress(pool: Pool, now: float) -> Progress | None:
    """Steps over all tasks, as many as those that have begun let expect; time by what has ended."""
    current = [
        each.report.progress
        for each in pool.running.values()
        if each.report is not None and each.report.progress is not None and each.planned
    ]
    ended = sum(pool.table.counts[state] for state in ("Succeeded", "Failed", "Stopped"))
    shared = pool.running.get(pool.key(SHARED_TRAINING))
    if shared is not None and shared.report is not None and shared.report.progress is not None:
        return replace(shared.report.progress, stage="training that all tasks share")
    if not current and not ended:
        return None
    total = pool.schedule.total
    known = pool.table.steps + sum(progress.total_steps for progress in current)
    each_task = known / max(1, pool.table.stepped + len(current))
    # Of what an earlier coordinator saw end, only the results are remembered.
    forgotten = ended + pool.table.counts["Pending"] - pool.table.stepped
    done = round(pool.table.steps + forgotten * each_task) + sum(each.step for each in current)
    expected = done if ended == total else max(done, round(each_task * total))
    passed = max(1e-9, now - pool.spent.began)
    rate = pool.table.ended_here / passed
    best = pool.table.standing.best
    latest = max(current, key=lambda progress: progress.at, default=None)
    return Progress(
        step=done,
        total_steps=max(1, expected),
        epoch=0 if latest is None else latest.epoch,
        loss=pool.last_loss if latest is None else latest.loss,
        samples_per_second=sum(progress.samples_per_second for progress in current),
        eta_seconds=(total - ended) / rate if rate else None,
        at=pool.moved if latest is None else max(pool.moved, latest.at),
        metrics={} if best is None else pool.table.rows[best].metrics,
        stage=f"tasks: {ended}/{total}" if not pool.over else "",
    )


def _waiting(pool: Pool) -> str:
    if pool.over or pool.running:
        return ""
    if pool.next_deadline() is not None:
        return "this coordinator is new: it waits for workers that are at tasks already"
    there = len(pool.idle)
    if pool.fixed is not None and there < pool.fixed:
        return f"{there} of {pool.fixed} workers are there that the next task takes"
    return f"{there} of {pool.assignment.workers} workers are there"
