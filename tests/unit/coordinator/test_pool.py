"""Which worker is at which task, and what becomes of a pool."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwise.api import exitcodes
from shardwise.coordinator.pool import HOLDER_SECONDS, Pool
from shardwise.coordinator.pool_stretches import COLLECT, SHARED_TRAINING

from .pool_world import (
    World,
    assignment,
    grid,
    listed,
    reopened,
    report,
    tasks_of,
    world,
)


def one_after_the_other(tasks: dict[str, Any], workers: int) -> World:
    """A pool whose workers come when those before them have a task already."""
    found = World(Pool(assignment(tasks, workers), 0.0))
    for index in range(workers):
        found.come(index)
    return found


def run_out(found: World, accuracy: float = 0.5) -> None:
    """All tasks end, then the collecting."""
    while found.open:
        found.end(next(iter(found.open)), accuracy)


def test_many_tasks_get_one_worker_each_and_workers_take_one_after_the_other() -> None:
    found = world(grid(5), 3)
    assert {task: len(found.crew(task)) for task in found.open} == {
        "p/task-0": 1,
        "p/task-1": 1,
        "p/task-2": 1,
    }
    found.end("p/task-1")
    assert found.crew("p/task-3") == {"w-1"}
    run_out(found)
    assert found.ended == ["task-1", "task-0", "task-2", "task-3", "task-4", COLLECT]
    assert found.dismissed == {"w-0", "w-1", "w-2"}
    assert report(found).state == "finished"


def test_each_task_gets_its_own_parameters_and_the_pools_trainer() -> None:
    found = world(grid(2), 2)
    parameters = [each.trainer["parameters"] for each in found.open.values()]
    assert parameters == [{"n": 0}, {"n": 1}]
    assert {each.trainer["epochs"] for each in found.open.values()} == {9}


def test_fewer_tasks_than_workers_share_the_workers() -> None:
    found = world(listed("theta-1", "theta-2"), 5)
    assert sorted(len(found.crew(task)) for task in found.open) == [2, 3]
    found = one_after_the_other(listed("theta-1", "theta-2"), 5)
    found.report("p/theta-1", eta=60.0, members=1)
    assert sorted(len(found.crew(task)) for task in found.open) == [1, 1], "the other has to tell"
    found.report("p/theta-2", eta=60.0, members=1)
    assert sorted(len(found.crew(task)) for task in found.open) == [2, 3]
    assert sum(found.sizes.values()) == 5


def test_no_worker_joins_what_is_nearly_done() -> None:
    found = one_after_the_other(listed("one"), 2)
    found.report("p/one", eta=1.0, members=1)
    assert len(found.crew("p/one")) == 1
    assert found.pool.idle == {"w-1": 1}


def test_a_task_has_at_most_its_shards_workers() -> None:
    found = one_after_the_other(listed("one"), 6)
    found.report("p/one", eta=100.0, members=1)
    assert len(found.crew("p/one")) == 4
    assert len(found.pool.idle) == 2


def test_a_fixed_size_waits_for_its_workers() -> None:
    found = World(Pool(assignment(listed("a", "b", workersPerTask=2), 4), 0.0))
    found.come(0)
    assert not found.open
    assert "1 of 2 workers" in report(found).waiting
    found.come(1, 2, 3)
    assert {task: len(found.crew(task)) for task in found.open} == {"p/a": 2, "p/b": 2}


def test_a_large_group_gives_a_worker_away_when_a_task_comes_up() -> None:
    found = world(listed("large", "small"), 3)
    assert found.crew("p/large") == {"w-0", "w-1"}
    found.die("w-2")
    found.fail("p/small", "WorkerLost")
    assert found.sizes["p/large"] == 1
    found.report("p/large", eta=60.0, members=1, standbys=("w-1",))
    assert (found.crew("p/large"), found.crew("p/small")) == ({"w-0"}, {"w-1"})


def test_parallelism_is_how_many_are_under_way() -> None:
    found = world(grid(6, parallelism=2), 4)
    assert len(found.open) == 2
    run_out(found)
    assert found.most_at_once == 2
    assert tasks_of(found).succeeded == 6


def test_a_worker_that_dies_is_replaced_in_its_task_first() -> None:
    found = world(grid(4), 2)
    found.die("w-0")
    assert found.crew("p/task-0") == set()
    found.come(0)
    assert found.crew("p/task-0") == {"w-0"}


def test_a_task_fails_alone() -> None:
    found = world(grid(3), 2)
    found.fail("p/task-0", "UserCodeFailed", "ValueError: no")
    run_out(found)
    tasks = tasks_of(found)
    assert (tasks.succeeded, tasks.failed, tasks.total) == (2, 1, 3)
    row = next(row for row in tasks.rows if row.name == "task-0")
    assert (row.state, row.reason, row.message) == ("Failed", "UserCodeFailed", "ValueError: no")
    assert report(found).failure is None


def test_more_failures_than_allowed_fail_the_job() -> None:
    found = world(grid(4, maxFailedTasks=1), 2)
    found.fail("p/task-0", "UserCodeFailed")
    assert report(found).failure is None
    found.fail("p/task-1", "UserCodeFailed", "boom")
    failure = report(found).failure
    assert failure is not None and failure.reason == "TooManyFailedTasks"
    assert "2 tasks failed, more than spec.tasks.maxFailedTasks (1); the last: task-1: boom" in (
        failure.message
    )
    assert not found.open
    found.come(0)
    assert found.dismissed == {"w-0", "w-1"}


def test_where_no_task_succeeds_the_job_fails() -> None:
    found = world(grid(2), 1)
    found.fail("p/task-0", "UserCodeFailed", "boom")
    found.fail("p/task-1", "UserCodeFailed", "boom")
    failure = report(found).failure
    assert failure is not None and failure.reason == "NoTaskSucceeded"
    assert "task-0: boom" in failure.message


@pytest.mark.parametrize("reason", ["InvalidTasks", "OutputFailed", "RefusedWorker"])
def test_what_would_befall_every_task_fails_the_job(reason: str) -> None:
    found = world(grid(9), 2)
    found.fail("p/task-0", reason, "the volume is full")
    failure = report(found).failure
    assert failure is not None and (failure.reason, failure.message) == (
        reason,
        "the volume is full",
    )
    assert not found.open


def test_a_task_that_needs_too_much_memory_is_tried_again_within_its_budget() -> None:
    found = world(grid(2, maxRetries=1), 1)
    for _ in range(2):
        assert "p/task-0" in found.open
        found.die("w-0")
        found.come(0, last_end="OOMKilled")
    assert "p/task-1" in found.open
    row = next(row for row in tasks_of(found).rows if row.name == "task-0")
    assert (row.state, row.reason) == ("Failed", "OOMKilled")
    assert "memory limit" in row.message


def test_a_kill_from_outside_is_not_held_against_a_task() -> None:
    found = world(grid(1, maxRetries=0), 1)
    for _ in range(9):
        found.die("w-0")
        found.come(0, last_end="Signal 9")
    assert found.crew("p/task-0") == {"w-0"}


def test_a_task_that_only_ever_dies_fails() -> None:
    found = world(grid(1, maxRetries=0), 1)
    for _ in range(11):
        found.die("w-0")
        found.come(0, last_end="Signal 9")
    assert report(found).failure is not None


def test_the_best_and_the_front() -> None:
    objectives = [
        {"metric": "accuracy", "direction": "Maximize"},
        {"metric": "bytes", "direction": "Minimize"},
    ]
    found = world(grid(4, objectives=objectives), 4)
    for number, (accuracy, size) in enumerate([(0.9, 100), (0.8, 50), (0.7, 60), (0.9, 90)]):
        found.end(f"p/task-{number}", accuracy, bytes=float(size))
    tasks = tasks_of(found)
    assert tasks.best is not None and tasks.best.name == "task-3"
    assert [row.name for row in tasks.pareto] == ["task-1", "task-3"]
    collect = next(iter(found.open.values())).stretch
    assert collect is not None and collect.collect is not None
    assert (collect.collect.best, collect.collect.pareto) == ("task-3", ("task-1", "task-3"))


def test_who_has_the_files_of_the_best_puts_all_together() -> None:
    """Where there is no volume, nobody else has them."""
    found = world(grid(2), 2)
    found.end("p/task-1", 0.4)
    assert found.crew(f"p/{COLLECT}") == set()
    found.end("p/task-0", 0.9)  # w-1 waits already, w-0 is on its way
    assert found.crew(f"p/{COLLECT}") == {"w-0"}


def test_who_has_the_files_of_the_best_is_not_waited_for_for_ever() -> None:
    found = world(grid(2), 2)
    found.end("p/task-1", 0.4)
    found.coming = False
    found.end("p/task-0", 0.9)
    assert found.pool.next_deadline() == HOLDER_SECONDS
    found.now = HOLDER_SECONDS
    found.act()
    assert found.crew(f"p/{COLLECT}") == {"w-1"}
    assert found.pool.next_deadline() is None


def test_a_result_without_an_objective_is_a_failure() -> None:
    found = world(grid(2, objectives=[{"metric": "bytes", "direction": "Minimize"}]), 1)
    found.end("p/task-0")
    row = next(row for row in tasks_of(found).rows if row.name == "task-0")
    assert (row.state, row.reason) == ("Failed", "NoFigure")


def test_stopped_early() -> None:
    found = world(grid(3, sweep={"earlyStopping": {"rungs": [3], "reductionFactor": 3}}), 3)
    assert {each.stretch.until for each in found.open.values() if each.stretch} == {3}
    for number, accuracy in enumerate((0.1, 0.9, 0.5)):
        found.end(f"p/task-{number}", accuracy)
    stretch = found.open["p/task-1"].stretch
    assert stretch is not None and stretch.until is None and stretch.state
    run_out(found, 0.95)
    tasks = tasks_of(found)
    assert (tasks.succeeded, tasks.stopped, tasks.pending) == (1, 2, 0)


def test_what_all_tasks_train_is_trained_once_by_all_workers() -> None:
    prune = {"steps": [{"name": "prune", "prune": {"sparsity": "0.5"}}]}
    sparsity = {
        "name": "s",
        "field": "compression.prune.prune.sparsity",
        "values": ["0.5", "0.8", "0.9"],
    }
    tasks = grid(2, sweep={"parameters": [sparsity]})
    found = world(tasks, 3, compression=prune)
    assert list(found.open) == [f"p/{SHARED_TRAINING}"]
    shared = found.open[f"p/{SHARED_TRAINING}"]
    assert (shared.workers, shared.compression) == (3, None)
    assert shared.stretch is not None and shared.stretch.until == 9
    found.end(f"p/{SHARED_TRAINING}")
    # The first task's statistics are the others' as well.
    assert {task: len(found.crew(task)) for task in found.open} == {"p/task-0": 3}
    states = {each.stretch.state for each in found.open.values() if each.stretch}
    found.end("p/task-0")
    assert sorted(found.open) == ["p/task-1", "p/task-2"]
    states |= {each.stretch.state for each in found.open.values() if each.stretch}
    assert states == {shared.stretch.state} != {""}
    run_out(found)
    assert tasks_of(found).succeeded == 3


def test_tasks_that_train_differently_share_no_training() -> None:
    prune = {"steps": [{"name": "prune", "prune": {"sparsity": "0.5"}}]}
    found = world(grid(2), 2, compression=prune)
    assert sorted(found.open) == ["p/task-0", "p/task-1"]


def test_drained_it_begins_nothing_more() -> None:
    found = world(grid(3), 1)
    found.pool.drain("the job is suspended")
    found.end("p/task-0")
    assert not found.open
    assert found.dismissed == {"w-0"}


# Another coordinator.


def test_another_coordinator_takes_over_what_runs_and_repeats_nothing() -> None:
    tasks = grid(4)
    found = world(tasks, 2)
    found.end("p/task-0")
    after = reopened(found, tasks, 2)
    assert after.pool.returned("w-1", "p/task-1", 1.0)
    after.act()
    assert list(after.open) == ["p/task-1"], "the others wait until the workers are back"
    after.at["w-1"] = "p/task-1"
    assert after.pool.returned("w-0", "p/task-2", 1.0)
    after.act()
    after.at["w-0"] = "p/task-2"
    run_out(after)
    assert sorted(after.ended) == [COLLECT, "task-1", "task-2", "task-3"]
    assert tasks_of(after).succeeded == 4


def test_workers_that_do_not_come_back_are_waited_for_only_so_long() -> None:
    tasks = grid(2)
    found = world(tasks, 2)
    after = reopened(found, tasks, 2)
    after.come(0)
    assert not after.open
    deadline = after.pool.next_deadline()
    assert deadline == 10.0
    after.now = deadline
    after.act()
    assert list(after.open) == ["p/task-0"]


def test_a_result_told_again_counts_once() -> None:
    tasks = grid(3)
    found = world(tasks, 1)
    number = found.pool.running["p/task-0"].planned
    assert number is not None
    after = reopened(found, tasks, 1)
    result = {"number": number.number, "figures": {"accuracy": 0.7}, "steps": 10}
    for _ in range(2):
        after.pool.told("p/task-0", result, 1.0)
    after.come(0)
    assert list(after.open) == ["p/task-1"]
    assert tasks_of(after).succeeded == 1


def test_a_record_of_another_spec_fails_the_job_with_the_remedy() -> None:
    pool = Pool(assignment(grid(2), 1, record="bm90IGEgcmVjb3Jk", began=True), 0.0)
    failure = pool.failure
    assert failure is not None and failure.reason == "InvalidTasks"
    assert "delete the job and create it again" in failure.message


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_happens_every_task_is_done_once(data: st.DataObject) -> None:
    """Ends, deaths, returns and new coordinators in any order."""
    count = data.draw(st.integers(1, 8))
    workers = data.draw(st.integers(1, 4))
    rungs = data.draw(st.sampled_from([{}, {"earlyStopping": {"rungs": [1, 3]}}]))
    tasks = grid(count, sweep=rungs)
    found = world(tasks, workers)
    away: set[int] = set()
    results: dict[tuple[str, int], int] = {}
    for _ in range(data.draw(st.integers(0, 25))):
        event = data.draw(st.sampled_from(["end", "die", "back", "restart"]))
        if event == "end" and found.open:
            task = data.draw(st.sampled_from(sorted(found.open)))
            stretch = found.open[task].stretch
            assert stretch is not None
            if found.crew(task):
                key = (stretch.name, stretch.number)
                results[key] = results.get(key, 0) + 1
                found.end(task, accuracy=0.1 * (stretch.number % 7))
        elif event == "die" and found.at:
            worker = data.draw(st.sampled_from(sorted(found.at)))
            found.die(worker)
            away.add(int(worker.removeprefix("w-")))
        elif event == "back" and away:
            found.come(away.pop(), last_end="Signal 9")
        elif event == "restart" and not found.pool.over:
            at = dict(found.at)
            idle = dict(found.pool.idle)
            found = reopened(found, tasks, workers)
            for worker, task in at.items():
                if found.pool.returned(worker, task, found.now):
                    found.at[worker] = task
                else:
                    away.add(int(worker.removeprefix("w-")))
                found.act()
            found.come(*idle.values())
            found.now += 10.0
            found.act()
    found.come(*sorted(away), last_end="Signal 9")
    found.now += 10.0
    found.act()
    while found.open:
        task = next(iter(found.open))
        stretch = found.open[task].stretch
        assert stretch is not None
        key = (stretch.name, stretch.number)
        results[key] = results.get(key, 0) + 1
        found.end(task, accuracy=0.1 * (stretch.number % 7))
    assert report(found).state == "finished"
    told = tasks_of(found)
    assert told.succeeded + told.stopped == count
    results.pop((COLLECT, 0), None)
    assert set(results.values()) == {1}


def test_a_worker_begun_anew_as_it_stood_still_is_not_held_against_its_task() -> None:
    found = world(listed("one", maxRetries=0, workersPerTask=2), 2)
    found.die("w-1")
    found.come(1, last_end=f"Exit {exitcodes.HUNG}")
    assert found.crew("p/one") == {"w-0", "w-1"}
    assert tasks_of(found).failed == 0


def test_another_coordinator_counts_the_failures_of_before() -> None:
    tasks = grid(200)
    found = world(tasks, 1)
    for number in range(2):
        found.fail(f"p/task-{number}", "UserCodeFailed", "boom")
    for number in range(2, 100):
        found.end(f"p/task-{number}")
    record = found.pool.schedule.record()
    after = Pool(assignment({**tasks, "maxFailedTasks": 1}, 1, record=record, began=True), 0.0)
    assert after.failure is not None and after.failure.reason == "TooManyFailedTasks"
    assert "2 tasks failed" in after.failure.message
