"""What a pool tells: its tasks in counts and a few rows, and all as one task's report. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice

from shardwise.api.status_tasks import ENDED_TASK_ROWS, MAX_PARETO_ROWS, MAX_TASK_ROWS
from shardwise.coordinator.pool import Pool
from shardwise.coordinator.pool_stretches import SHARED_TRAINING
from shardwise.coordinator.report import (
    Loss,
    Progress,
    TaskReport,
    TaskRow,
    TasksReport,
    TaskState,
)
from shardwise.coordinator.running import Running
from shardwise.sweep import Stretch
from shardwise.sweep.effort import Effort

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
    ended = [table.rows[trial] for trial in table.newest()]
    room = MAX_TASK_ROWS - min(ENDED_TASK_ROWS, len(ended))
    shown = [_row(pool, each) for each in islice(pool.running.values(), room) if each.planned]
    several = len(table.objectives) > 1
    return TasksReport(
        total=pool.schedule.total,
        pending=pool.schedule.total - begun + counts["Pending"],
        running=counts["Running"],
        succeeded=counts["Succeeded"],
        failed=counts["Failed"],
        stopped=counts["Stopped"],
        rows=tuple([*shown, *ended][:MAX_TASK_ROWS]),
        best=None if best is None else pool.table.rows[best],
        pareto=tuple(pool.table.rows[t] for t in pool.table.standing.front[:MAX_PARETO_ROWS])
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
    """Steps over all tasks, done and expected, and the time that is left."""
    current = [
        (each.planned, each.report.progress)
        for each in pool.running.values()
        if each.report is not None and each.report.progress is not None and each.planned
    ]
    ended = _ended(pool)
    shared = pool.running.get(pool.key(SHARED_TRAINING))
    if shared is not None and shared.report is not None and shared.report.progress is not None:
        return replace(shared.report.progress, stage="training that all tasks share")
    if not current and not ended and not pool.table.steps:
        return None
    told = [progress for _, progress in current]
    passed = max(1e-9, now - pool.spent.began)
    effort = pool.schedule.effort
    if effort is None:
        done, expected, eta = _by_tasks(pool, told, passed)
    else:
        done, expected, eta = _by_rungs(pool, effort, current, passed)
    best = pool.table.standing.best
    latest = max(told, key=lambda progress: progress.at, default=None)
    return Progress(
        step=done,
        total_steps=max(1, expected),
        epoch=0 if latest is None else latest.epoch,
        loss=pool.last_loss if latest is None else latest.loss,
        samples_per_second=sum(progress.samples_per_second for progress in told),
        eta_seconds=eta,
        at=pool.moved if latest is None else max(pool.moved, latest.at),
        metrics={} if best is None else pool.table.rows[best].metrics,
        stage=f"tasks: {ended}/{pool.schedule.total}" if not pool.over else "",
    )


def _ended(pool: Pool) -> int:
    return sum(pool.table.counts[state] for state in ("Succeeded", "Failed", "Stopped"))


def _by_tasks(
    pool: Pool, current: Sequence[Progress], passed: float
) -> tuple[int, int, float | None]:
    """Steps done, steps expected, seconds left: as many steps as the tasks that have begun let
    expect, time by the tasks that have ended."""
    total, ended = pool.schedule.total, _ended(pool)
    known = pool.table.steps + sum(progress.total_steps for progress in current)
    each_task = known / max(1, pool.table.stepped + len(current))
    # Of what an earlier coordinator saw end, only the results are remembered.
    forgotten = ended + pool.table.counts["Pending"] - pool.table.stepped
    done = round(pool.table.steps + forgotten * each_task) + sum(each.step for each in current)
    expected = done if ended == total else max(done, round(each_task * total))
    rate = pool.table.ended_here / passed
    return done, expected, (total - ended) / rate if rate else None


def _by_rungs(
    pool: Pool, effort: Effort, current: Sequence[tuple[Stretch, Progress]], passed: float
) -> tuple[int, int, float | None]:
    """The same where tasks wait at rungs and most of them go no further: by `sweep.effort`, the
    time by what this coordinator has seen done of it."""
    reached = effort.done + sum(
        pool.schedule.reached(planned, progress.step / max(1, progress.total_steps))
        for planned, progress in current
    )
    known = pool.table.steps + sum(progress.step for _, progress in current)
    if current:
        each_unit = sum(progress.total_steps for _, progress in current) / len(current)
        each_unit /= effort.full
    else:
        each_unit = known / reached if reached else 0.0
    # Of what an earlier coordinator saw, the steps are not known.
    done = max(known, round(reached * each_unit))
    if _ended(pool) == pool.schedule.total:
        return done, done, 0.0
    rate = (reached - pool.effort_before) / passed
    left = max(0.0, effort.whole - reached)
    return done, max(done, round(effort.whole * each_unit)), left / rate if rate > 0 else None


def _waiting(pool: Pool) -> str:
    if pool.over or pool.running:
        return ""
    if pool.next_deadline() is not None:
        return "this coordinator is new: it waits for workers that are at tasks already"
    there = len(pool.idle)
    if pool.fixed is not None and there < pool.fixed:
        return f"{there} of {pool.fixed} workers are there that the next task takes"
    return f"{there} of {pool.assignment.workers} workers are there"
