"""What is written of a pool, and how often; what a restart goes on from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from controller_rig import Rig

from shardwise.coordinator.report import TaskRow, TasksReport
from shardwise_operator.writes import LastWrite, TokenBucket


def pool_report(
    rig: Rig, ended: int, *, running: int = 4, members: int = 4, **changes: Any
) -> None:
    """The pool after so many of a hundred tasks."""
    workers = tuple(f"digits-{n}" for n in range(4))
    report = rig.reports["job-uid"]
    rig.reports["job-uid"] = replace(
        report,
        **{
            "state": "training",
            "generation": 1,
            "connected": workers,
            "members": workers[:members],
            "tasks": TasksReport(
                total=100,
                pending=100 - ended - running,
                running=running,
                succeeded=ended,
                failed=0,
                stopped=0,
                record=f"record of {ended}",
                utilization=0.5,
            ),
            **changes,
        },
    )


async def running_pool() -> Rig:
    rig = Rig()
    await rig.add(tasks={"sweep": {"parameters": [{"name": "n", "values": list(range(100))}]}})
    await rig.reconcile()
    pool_report(rig, 0)
    await rig.reconcile()
    assert rig.status["state"] == "Running"
    return rig


async def test_a_record_is_written_within_two_seconds_and_not_with_each_task():
    rig = await running_pool()
    before = rig.writes()
    for task in range(1, 41):  # twenty a second
        rig.time += 0.05
        # Meanwhile one worker is on its way to the next task.
        pool_report(rig, task, members=4 - task % 2)
        await rig.reconcile()
    assert rig.time == pytest.approx(2.0)
    pool_report(rig, 40)
    await rig.reconcile()
    assert rig.writes() == before + 1
    assert rig.status["tasks"]["record"] == "record of 40"
    assert rig.status["tasks"]["succeeded"] == 40
    assert rig.status["message"] == "4 workers at 4 of 100 tasks; 40 ended"
    pool_report(rig, 41)
    assert await rig.reconcile() == pytest.approx(2.0)
    assert rig.writes() == before + 1


async def test_a_record_waits_for_the_bucket_that_all_jobs_share():
    rig = await running_pool()
    rig.controller._bucket = TokenBucket(0.5, lambda: rig.time)
    assert rig.controller._bucket.take(LastWrite()) == 0.0
    rig.time = 2.5
    assert rig.controller._bucket.take(LastWrite()) == 0.0  # another job's
    pool_report(rig, 1)
    before = rig.writes()
    assert await rig.reconcile() == pytest.approx(2.0)
    assert rig.writes() == before
    rig.time += 2.0
    await rig.reconcile()
    assert rig.status["tasks"]["record"] == "record of 1"


async def test_rows_of_running_tasks_are_progress():
    rig = await running_pool()
    before = rig.writes()
    tasks = rig.reports["job-uid"].tasks
    rig.time = 3.0
    running = TaskRow(name="task-0", state="Running", step=7)
    pool_report(rig, 0, tasks=replace(tasks, rows=(running,), utilization=0.75))
    assert await rig.reconcile() == pytest.approx(7.0)
    assert rig.writes() == before
    rig.time = 10.0
    await rig.reconcile()
    assert rig.status["tasks"]["items"][0]["step"] == 7


async def test_what_is_no_task_is_written_at_once():
    rig = await running_pool()
    before = rig.writes()
    pool_report(rig, 1, recoveries={"Killed": 1})
    await rig.reconcile()
    assert rig.writes() == before + 1
    assert rig.status["recoveries"] == 1


async def test_a_pool_goes_on_from_its_record_after_a_restart():
    rig = await running_pool()
    rig.time = 2.0
    pool_report(rig, 12)
    await rig.reconcile()
    rig.restart()
    await rig.reconcile()
    assert (rig.opened[-1].record, rig.opened[-1].generation_floor) == ("record of 12", 1)
    assert len(rig.made("pods")) == 4


async def test_a_moment_without_tasks_is_none_and_a_while_is():
    rig = await running_pool()
    for _ in range(4):
        rig.time += 4.0
        pool_report(rig, 1, running=0, members=0, connected=())
        assert await rig.reconcile() == pytest.approx(5.0)
        assert rig.status["state"] == "Running"
        pool_report(rig, 2)
        await rig.reconcile()
    pool_report(rig, 3, running=0, members=0, connected=(), state="waiting")
    await rig.reconcile()
    rig.time += 5.0
    await rig.reconcile()
    assert rig.status["state"] != "Running"
