"""Decisions about a job with many tasks: what it tells, what it bears, and how it goes on after a
restart of the operator."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from operator_world import told
from pool_world import SWEEP, TOTAL, PoolWorld, row

from shardwise.api import conditions as c
from shardwise.coordinator.report import Failure, TaskRow
from shardwise_operator.actions import CreatePod, DrainTask, OpenTask, ResizeTask


def test_a_pool_may_be_larger_than_its_shards():
    world = PoolWorld(workers={"replicas": 12})
    world.settle()
    assert len(world.pods) == 12
    assert world.condition("Accepted")["status"] == "True"
    assert world.opened.workers == 12
    assert world.opened.trainer["tasks"]["sweep"]["parameters"][0]["name"] == "hidden"
    assert (world.opened.generation_floor, world.opened.record) == (0, "")


def test_it_runs_once_a_task_does_and_says_how_far_it_is():
    world = PoolWorld()
    world.settle()
    assert world.status["state"] == "Pending"
    assert world.status["tasks"]["summary"] == f"0/{TOTAL}"
    world.run_pods()
    world.settle()
    assert world.status["state"] == "Starting"
    world.succeeded, world.failed = [0, 1], [2]
    world.work(3, 4, 5, 6)
    world.settle()
    status = world.status
    assert (status["state"], status["reason"]) == ("Running", "Training")
    assert status["message"] == "4 workers at 4 of 8 tasks; 3 ended, 1 failed"
    assert status["progress"]["stage"] == "3/8 tasks, 4 running"
    assert status["progress"]["estimatedRemaining"] == "1m30s"
    assert status["progress"]["percent"] == 50
    tasks = status["tasks"]
    assert {key: tasks[key] for key in ("total", "pending", "running", "succeeded", "failed")} == {
        "total": 8,
        "pending": 1,
        "running": 4,
        "succeeded": 2,
        "failed": 1,
    }
    assert tasks["summary"] == "3/8"
    assert tasks["utilization"] == "0.900"
    assert tasks["record"] == "0,1"
    assert tasks["best"]["name"] == "task-1"
    assert tasks["best"]["parameters"] == [{"name": "hidden", "value": "32"}]
    assert tasks["best"]["metrics"] == [{"name": "accuracy", "value": "0.51"}]
    assert [item["name"] for item in tasks["items"]] == [f"task-{n}" for n in (3, 4, 5, 6, 1, 0, 2)]
    assert tasks["items"][-1]["message"] == "ValueError: 2 is too wide"


def test_workers_between_two_tasks_are_no_news():
    world = PoolWorld()
    world.begin()
    before, since = world.status, world.condition("Running")["lastTransitionTime"]
    for _ in range(3):
        world.succeeded.append(len(world.succeeded))
        world.pass_time(2)
        world.work(away=4)  # all at once, and nobody is connected
        decision = world.step()
        assert decision.requeue_after is not None
        assert world.status["state"] == before["state"] == "Running"
        assert world.condition("Degraded")["status"] == "False"
        world.work(4, 5, 6, 7)
        world.settle()
    assert world.condition("Running")["lastTransitionTime"] == since
    assert "activeSeconds" not in world.status


def test_a_pool_without_workers_waits_and_one_with_few_is_degraded():
    world = PoolWorld(workers={"replicas": 4, "min": 3})
    world.begin()
    assert world.condition("Degraded")["reason"] == c.ALL_WORKERS
    world.end_pod(2, 137)
    world.end_pod(3, 137)
    world.work(0, 1)
    world.step()
    assert world.condition("Degraded")["status"] == "False"
    world.pass_time(6)
    world.work(0, 1)
    world.step()
    assert world.status["state"] == "Running"  # any number of workers goes on
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", c.FEWER_WORKERS)
    assert "2 of 4 workers are there, fewer than spec.workers.min (3)" in degraded["message"]
    for index in (0, 1):
        world.end_pod(index, 137)
    world.work()
    world.step()
    assert world.status["state"] == "Running"
    world.pass_time(6)
    world.work()
    world.step()
    assert world.status["state"] == "Waiting"
    assert world.condition("Running")["status"] == "False"


def test_a_new_operator_goes_on_from_the_record():
    world = PoolWorld()
    world.begin()
    world.succeeded, world.failed = [0, 1, 2], [3]
    world.work(4, 5, 6, 7)
    world.settle()
    status = world.status
    world.restart_operator()
    world.settled = False
    opened = next(a for a in world.step().actions if isinstance(a, OpenTask))
    assert opened.record == "0,1,2"
    assert opened.generation_floor == 3  # it began before
    # The new coordinator knows of results, and of no hash and no running task yet.
    bare = [row(n, weights_sha256="", step=0, workers=0, seconds=0.0) for n in (2, 1, 0)]
    world.coordinator(
        tasks=replace(world.report.tasks, rows=(), best=bare[0], pending=4, failed=1),
    )
    world.step()
    assert world.status["state"] == "Running"
    assert world.status["tasks"]["best"] == status["tasks"]["best"]
    ended = [item for item in status["tasks"]["items"] if item["state"] != "Running"]
    assert world.status["tasks"]["items"] == ended
    assert world.status["tasks"]["utilization"] == "0.900"
    world.settled = True
    world.work(4, 5, 6, 7)
    world.settle()
    assert {k: v for k, v in world.status["tasks"].items() if k != "items"} == {
        k: v for k, v in status["tasks"].items() if k != "items"
    }
    assert world.condition("Running")["lastTransitionTime"] == status["startTime"]


def test_it_ends_with_what_the_collecting_worker_tells():
    world = PoolWorld()
    world.begin()
    world.failed = [5]
    result = world.end()
    world.work(away=0, state="finished", result=result)
    world.settle()
    world.pass_time(6)
    decision = world.step()
    status = world.status
    assert status["state"] == "Succeeded"
    assert (
        status["message"] == "7 of 8 tasks succeeded, 1 failed; the best is task-7: accuracy 0.57"
    )
    assert status["progress"]["step"] == status["progress"]["totalSteps"] == 10 * TOTAL
    assert status["result"]["weightsSha256"] == "b" * 64
    assert "stage" not in status["progress"]
    tasks = status["tasks"]
    assert (tasks["summary"], tasks["succeeded"], tasks["failed"]) == ("8/8", 7, 1)
    assert (tasks["pending"], tasks["running"]) == (0, 0)
    assert all(item["state"] != "Running" for item in tasks["items"])
    assert ("Completed", status["message"]) in world.events(decision)


def test_it_ends_by_a_pods_word_where_the_operator_was_away():
    world = PoolWorld()
    world.begin()
    world.succeeded = [0, 1]
    world.work(2, 3, 4, 5)
    world.settle()
    world.restart_operator()
    result = world.end()
    for index in range(4):
        collected = result if index == 2 else None
        world.end_pod(
            index, 0, termination=json.dumps({"outcome": "succeeded", "result": collected})
        )
    world.step()
    status = world.status
    assert status["state"] == "Succeeded"
    assert status["result"]["pod"] == "digits-2"
    tasks = status["tasks"]
    assert (tasks["summary"], tasks["succeeded"], tasks["running"]) == ("8/8", 8, 0)
    assert tasks["best"]["name"] == "task-7"
    assert tasks["best"]["weightsSha256"] == "b" * 64
    assert [item["name"] for item in tasks["items"]] == ["task-1", "task-0"]


@pytest.mark.parametrize(
    "reason", [c.INVALID_TASKS, c.TOO_MANY_FAILED_TASKS, c.NO_TASK_SUCCEEDED, c.OUTPUT_FAILED]
)
def test_what_fails_a_pool_fails_the_job(reason):
    world = PoolWorld()
    world.begin()
    world.work(state="failed", failure=Failure(reason=reason, message="so it is"))
    world.step()
    for index in range(4):  # told to end: no worker is to blame
        world.end_pod(index, 0, termination=json.dumps({"outcome": "succeeded", "result": None}))
    world.settle()
    assert (world.status["state"], world.status["reason"]) == ("Failed", reason)
    assert world.status["message"] == "so it is"
    assert "restarts" not in world.status


def test_one_workers_user_error_is_not_the_jobs():
    world = PoolWorld()
    world.begin()
    failed = told("failed", reason="UserCodeFailed", message="KeyError: 3", detail="Traceback")
    world.end_pod(1, 70, termination=failed)
    world.work(0, 2, 3)
    world.settle()
    assert world.status["state"] == "Running"
    assert world.status["restarts"]["total"] == 1


def test_it_is_suspended_and_resumed_with_its_record():
    world = PoolWorld()
    world.begin()
    world.succeeded = [0, 1]
    world.work(2, 3, 4, 5)
    world.settle()
    world.raw["spec"]["suspend"] = True
    decision = world.step()
    assert any(isinstance(action, DrainTask) for action in decision.actions)
    assert world.status["state"] == "Suspending"
    for index in range(4):  # a worker that is let go of while it waits has nothing to tell
        world.end_pod(index, 0, termination=json.dumps({"outcome": "succeeded", "result": None}))
    world.settle()
    assert world.status["state"] == "Suspended"
    assert world.pods == {}
    assert world.status["tasks"]["record"] == "0,1"
    assert world.status["tasks"]["summary"] == "2/8"
    world.raw["spec"]["suspend"] = False
    decision = world.step()
    opened = next(a for a in decision.actions if isinstance(a, OpenTask))
    assert opened.record == "0,1"
    assert sum(isinstance(action, CreatePod) for action in decision.actions) == 4
    assert "restarts" not in world.status


def test_scaling_down_takes_the_idle_workers():
    world = PoolWorld()
    world.begin()
    world.work(0, 1, members=("digits-2", "digits-3"), standbys=("digits-0", "digits-1"))
    world.raw["spec"]["workers"]["replicas"] = 2
    decision = world.step()
    assert ResizeTask(workers=2, min_workers=1) in decision.actions
    assert sorted(world.pods) == ["digits-2", "digits-3"]


def test_it_has_to_start_in_time_though_its_coordinator_numbers_it_at_once():
    world = PoolWorld(startupDeadlineSeconds=60)
    world.settle()
    assert world.status["workers"]["generation"] == 1
    world.pass_time(61)
    world.step()
    assert (world.status["state"], world.status["reason"]) == ("Failed", "StartupDeadlineExceeded")


def test_it_need_not_start_in_time_again():
    world = PoolWorld(startupDeadlineSeconds=60)
    world.begin()
    world.work()
    world.step()
    world.pass_time(61)
    world.work()
    world.step()
    assert world.status["state"] == "Recovering"
    world.pass_time(61)
    world.step()
    assert world.status["state"] == "Recovering"


def test_it_stalls_where_no_task_moves():
    world = PoolWorld(stallTimeoutSeconds=30)
    world.begin()
    world.pass_time(20)
    world.work(0, 1, 2, 3)
    world.settle()
    still = world.report.progress
    world.pass_time(29)
    world.work(0, 1, 2, 3, progress=still)
    world.step()
    assert world.status["reason"] == "Training"
    world.pass_time(2)
    world.work(0, 1, 2, 3, progress=still)
    world.step()
    assert world.status["reason"] == "Stalled"


def test_a_checkpoint_is_no_condition_of_a_pool():
    world = PoolWorld(checkpoint={"everySteps": 5, "volume": {"emptyDir": {}}})
    world.begin()
    assert "Checkpointed" not in [entry["type"] for entry in world.status["conditions"]]


def test_failed_tasks_are_told_of_once_and_not_ten_thousand_times():
    world = PoolWorld()
    world.total = 40
    world.begin()
    world.failed = [0, 1]
    world.work(5, 6)
    told_of = world.events(world.step())
    assert told_of == [
        ("UserCodeFailed", "task task-0 failed: ValueError: 0 is too wide"),
        ("UserCodeFailed", "task task-1 failed: ValueError: 1 is too wide"),
    ]
    assert world.events(world.step()) == []
    everything = []
    for count in range(3, 30):
        world.failed = list(range(count))
        world.work(35, 36)
        everything += world.events(world.step())
    assert [reason for reason, _ in everything] == ["UserCodeFailed"] * 8 + ["TasksFailed"]
    assert "more than 10 tasks have failed" in everything[-1][1]


def test_a_better_task_is_no_event():
    world = PoolWorld()
    world.begin()
    world.succeeded = [0, 1]
    world.work(2, 3, 4, 5)
    assert world.events(world.step()) == []


# What an object may be as large as.

OBJECT_BYTES = 100 * 1024


def large(world: PoolWorld, total: int, parameters: int) -> None:
    """A pool in the middle of many tasks, with a front and a record as long as it may be."""
    rows = tuple(
        TaskRow(
            name=f"task-{number}",
            state="Succeeded" if number % 3 else "Failed",
            parameters={f"parameter_{n}": f"{0.1 / (number + 1):.17g}" for n in range(parameters)},
            metrics={"accuracy": 0.9876543, "testLoss": 0.123456},
            weights_sha256="c" * 64,
            step=1000,
            total_steps=1000,
            workers=1,
            seconds=12.3,
            message="" if number % 3 else "ValueError: " + "x" * 240,
        )
        for number in range(32)
    )
    ended = total // 2
    tasks = replace(
        world.report.tasks,
        total=total,
        pending=total - ended - 4,
        succeeded=ended,
        rows=rows[:20],
        best=rows[1],
        pareto=rows,
        record="r" * 65_536,
    )
    world.work(0, 1, 2, 3, tasks=tasks)


@pytest.mark.parametrize("parameters", [3, 6, 16])
def test_ten_thousand_tasks_fit_into_an_object(parameters):
    world = PoolWorld(
        tasks={
            "sweep": {
                "algorithm": "Random",
                "parameters": [
                    {
                        "name": f"parameter_{n}",
                        "range": {"type": "Float", "min": "0.001", "max": "1", "scale": "Log"},
                    }
                    for n in range(parameters)
                ],
            },
            "objectives": SWEEP["objectives"] + [{"metric": "testLoss", "direction": "Minimize"}],
            "maxTasks": 10_000,
        }
    )
    world.begin()
    large(world, 10_000, parameters)
    world.settle()
    tasks = world.status["tasks"]
    assert tasks["total"] == 10_000
    assert len(tasks["record"]) == 65_536
    assert len(tasks["items"]) >= 5
    assert len(tasks["pareto"]) >= 5
    size = len(json.dumps(world.raw, separators=(",", ":")))
    assert size < OBJECT_BYTES, size


def test_rows_as_large_as_they_can_be_leave_the_status_small():
    world = PoolWorld()
    world.begin()
    wide = TaskRow(
        name="n" * 63,
        state="Succeeded",
        parameters={f"p{n}".ljust(63, "p"): "v" * 300 for n in range(40)},
        metrics={f"m{n}".ljust(70, "m"): 1e-300 for n in range(40)},
        weights_sha256="c" * 64,
        message="é" * 1000,
    )
    rows = tuple(replace(wide, name=f"{n}".rjust(63, "n")) for n in range(32))
    tasks = replace(world.report.tasks, rows=rows[:20], pareto=rows, best=wide, record="r" * 65_536)
    world.work(0, 1, 2, 3, tasks=tasks)
    world.settle()
    assert len(json.dumps(world.status["tasks"], separators=(",", ":"))) < 98 * 1024


def test_a_failed_task_shows_beside_many_that_run_however_long_their_rows_are():
    world = PoolWorld()
    world.begin()
    wide = {f"parameter_{n}": "v" * 100 for n in range(16)}
    running = [replace(row(n, "Running"), parameters=wide) for n in range(15)]
    ended = [row(20, "Failed"), *(row(n) for n in range(21, 25))]
    tasks = replace(world.report.tasks, rows=tuple([*running, *ended]))
    world.work(0, 1, 2, 3, tasks=tasks)
    world.settle()
    items = world.status["tasks"]["items"]
    states = [item["state"] for item in items]
    assert 1 < states.count("Running") < 15, "there is no room for all"
    assert states == sorted(states, key=lambda state: state != "Running")
    assert [item["name"] for item in items if item["state"] != "Running"] == [
        f"task-{n}" for n in range(20, 25)
    ]
    (failed,) = (item for item in items if item["state"] == "Failed")
    assert failed["message"] == "ValueError: 20 is too wide"


# What is refused before any pod is made.

SOURCE = "def task(hidden: int = 64):\n    return None\n"


def test_a_sweep_over_what_the_entrypoint_does_not_take_is_refused():
    parameters = [{"name": "wdith", "values": [1, 2]}]
    world = PoolWorld(
        trainer={"entrypoint": "mine:task"}, tasks={"sweep": {"parameters": parameters}}
    )
    world.source = SOURCE
    decision = world.step()
    assert not any(isinstance(action, CreatePod) for action in decision.actions)
    accepted = world.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidTasks")
    assert "spec.tasks.sweep.parameters[0].name" in accepted["message"]
    assert "the function takes hidden" in accepted["message"]
    assert world.status["state"] == "Invalid"


def test_what_it_takes_is_accepted_and_looked_at_no_more_once_it_runs():
    world = PoolWorld()
    world.source = SOURCE
    world.begin()
    assert world.condition("Accepted")["status"] == "True"
    world.source = "def task():\n    return None\n"
    world.settle()
    assert world.condition("Accepted")["status"] == "True"
