"""What a pool begins with: its schedule and its table, with what earlier coordinators have written
down. Pure. It may take long, and is no part of what holds the loop then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardwise.api import conditions
from shardwise.coordinator.report import Failure, PoolAssignment, TaskReport
from shardwise.coordinator.table import Table
from shardwise.sweep import RecordError, Schedule, Stretch

ADAPTIVE = ("TPE", "NSGA2")


@dataclass(frozen=True, slots=True)
class Start:
    """The tasks as they are known when a pool begins.

    Args:
        schedule: what is tried, with the results of before told.
        table: with a row for each task that has a result.
        unfinished: what was begun and has no result.
        begun: whether anything was.
        failure: why the tasks cannot go on from the record.
    """

    schedule: Schedule
    table: Table
    unfinished: tuple[Stretch, ...]
    begun: bool
    failure: Failure | None


def takes_long(pool: PoolAssignment) -> bool:
    """Whether `start` may take more than moments: it asks Optuna, or goes through results."""
    sweep = pool.tasks.get("sweep") or {}
    return bool(pool.record) or sweep.get("algorithm") in ADAPTIVE


def start(pool: PoolAssignment, abandoned: Callable[[], bool] = lambda: False) -> Start:
    """The tasks of a pool.

    Args:
        abandoned: asked now and then whether nobody waits for it any more.

    Raises:
        ValueError: the spec contradicts itself in a way that validation should have refused.
        AbandonedError: it was abandoned.
    """
    failure = None
    schedule: Schedule | None = None
    unfinished: Sequence[Stretch] = ()
    if pool.record:
        try:
            schedule, unfinished = Schedule.restore(
                pool.tasks, pool.trainer, pool.record, abandoned
            )
        except RecordError as error:
            message = f"{error}; delete the job and create it again"
            failure = Failure(reason=conditions.INVALID_TASKS, message=message)
    schedule = schedule or Schedule(pool.tasks, pool.trainer)
    table = Table(pool.tasks.get("objectives") or ())
    told = schedule.told()
    for planned, values in told:
        table.remember(planned, values)
    return Start(schedule, table, tuple(unfinished), bool(unfinished or told), failure)


def preparing(
    pool: PoolAssignment, connected: Sequence[str], failure: Failure | None
) -> TaskReport:
    """What is told of a pool while its start is worked out, or has failed to be."""
    return TaskReport(
        state="waiting" if failure is None else "failed",
        generation=1,
        connected=tuple(connected),
        workers=pool.workers,
        progress=None,
        failure=failure,
        result=None,
        waiting="" if failure else "the coordinator goes through the results that the tasks have",
        recoveries=pool.recoveries,
        seconds=pool.seconds,
        lost_steps=pool.lost_steps,
    )
