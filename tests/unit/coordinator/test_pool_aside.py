"""What takes long in a pool is done beside the loop, and comes to the same."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from shardwise.coordinator import pool_start
from shardwise.coordinator.pool import Pool
from shardwise.coordinator.protocol import Bye, Finished, Stop, Welcome
from shardwise.coordinator.report import TaskReport
from shardwise.sweep import Schedule

from .conftest import MakeHello
from .pool_world import TRAINER, World, assignment, grid, tpe, world
from .serving import TASK, Server, serving, until
from .test_pool_service import begin, result

WAIT_SECONDS = 20.0


def accuracy(parameters: Any) -> float:
    """What a task comes to, exact in float32."""
    return round(1000 * (1 - abs(float(parameters["learning_rate"]) - 0.1))) / 1024


def suggested(tasks: dict[str, Any]) -> list[str]:
    """The learning rates that an uninterrupted schedule gives, by trial."""
    schedule, begun = Schedule(tasks, TRAINER), []
    while not schedule.exhausted:
        while (stretch := schedule.next()) is not None:
            begun.append(stretch)
        told = len(schedule.told())
        schedule.tell(told, [accuracy(begun[told].assigned)])
    return [str(stretch.assigned["learning_rate"]) for stretch in begun]


class Gate:
    """Stands in for a method of a schedule, whose callers wait in it until they are let through.
    On the loop's thread nobody would be: the loop is what opens it."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.real, self.opened, self.entered = real, threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.entered.set()
        assert self.opened.wait(WAIT_SECONDS), "the loop was held"
        return self.real(*arguments)


def report(server: Server) -> TaskReport:
    found = server.coordinator.report(TASK)
    assert found is not None
    return found


async def work(server: Server, hello: MakeHello, tasks: int) -> list[str]:
    """One worker does so many tasks; their learning rates."""
    done = []
    for _ in range(tasks):
        client = await server.connect(hello(0))
        await begin(client)
        given = next(each for each in server.coordinator._tasks.values())
        stretch = given.group.assignment.stretch
        assert stretch is not None
        done.append(str(stretch.parameters["learning_rate"]))
        client.send(Finished(result=result(stretch.number, accuracy(stretch.parameters))))
        await client.next(Bye)
    return done


async def test_a_pool_that_begins_anew_does_not_hold_the_loop(
    hello: MakeHello, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world(grid(3), 1)
    found.end("p/task-0", 0.25)
    record = found.pool.schedule.record()
    gate = Gate(Schedule.restore)
    monkeypatch.setattr(Schedule, "restore", gate)
    async with serving(adoption_seconds=0.1) as server:
        server.coordinator.open_pool(
            assignment(grid(3), 1, pool=TASK, record=record, began=True, recoveries={"Killed": 2})
        )
        client = await server.connect(hello(0))
        await until(lambda: report(server).connected == ("w-0",))
        seen = report(server)
        assert (seen.state, seen.tasks, seen.recoveries) == ("waiting", None, {"Killed": 2})
        assert "goes through the results" in seen.waiting
        server.coordinator.resize_task(TASK, 2, 1)
        gate.opened.set()
        assert (await client.next(Welcome)).assignment.task == f"{TASK}/task-1"
        seen = report(server)
        assert seen.tasks is not None
        assert (seen.workers, seen.tasks.succeeded) == (2, 1)


async def test_who_comes_and_goes_while_a_pool_begins(
    hello: MakeHello, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(pool_start.start)
    monkeypatch.setattr("shardwise.coordinator.pools.start", gate)
    async with serving(adoption_seconds=0.1) as server:
        server.coordinator.open_pool(assignment(tpe(3), 1, pool=TASK))
        client = await server.connect(hello(0))
        await until(lambda: report(server).connected == ("w-0",))
        await client.close()
        await until(lambda: report(server).connected == ())
        gate.opened.set()
        await until(lambda: report(server).tasks is not None)
        assert report(server).members == ()
        client = await server.connect(hello(0))
        assert (await client.next(Welcome)).assignment.task == f"{TASK}/task-0"


async def test_a_pool_that_is_closed_before_it_has_begun_lets_its_workers_go(
    hello: MakeHello, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = world(tpe(3), 1)
    abandoned = threading.Event()

    def restore(tasks: Any, trainer: Any, record: str, asked: Callable[[], bool]) -> Any:
        while not asked():
            threading.Event().wait(0.01)
        abandoned.set()
        return Schedule(tasks, trainer), ()

    monkeypatch.setattr(Schedule, "restore", restore)
    async with serving(adoption_seconds=0.1) as server:
        record = found.pool.schedule.record()
        server.coordinator.open_pool(assignment(tpe(3), 1, pool=TASK, record=record, began=True))
        client = await server.connect(hello(0))
        await until(lambda: report(server).connected == ("w-0",))
        server.coordinator.close_task(TASK, "JobDeleted", "the job was deleted")
        assert (await client.next(Stop)).reason == "JobDeleted"
        assert await asyncio.to_thread(abandoned.wait, WAIT_SECONDS)


async def test_a_pool_that_cannot_begin_says_why(
    hello: MakeHello, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> Any:
        raise ImportError("no module named optuna")

    monkeypatch.setattr("shardwise.coordinator.pools.start", start)
    async with serving(adoption_seconds=0.1) as server:
        server.coordinator.open_pool(assignment(tpe(3), 1, pool=TASK))
        await until(lambda: report(server).state == "failed")
        failure = report(server).failure
        assert failure is not None
        assert failure.reason == "InvalidTasks"
        assert "ImportError: no module named optuna" in failure.message


async def test_a_decision_does_not_hold_the_loop(
    hello: MakeHello, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(Schedule.decide)
    monkeypatch.setattr(Schedule, "decide", lambda self: gate(self))
    async with serving(adoption_seconds=0.1) as server:
        server.coordinator.open_pool(assignment(tpe(3), 1, pool=TASK))
        client = await server.connect(hello(0))
        await until(gate.entered.is_set)
        gate.opened.set()
        assert (await client.next(Welcome)).assignment.task == f"{TASK}/task-0"


async def test_a_decision_that_fails_ends_the_job(
    hello: MakeHello, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide(_: Schedule) -> None:
        raise FloatingPointError("overflow")

    monkeypatch.setattr(Schedule, "decide", decide)
    async with serving(adoption_seconds=0.1) as server:
        server.coordinator.open_pool(assignment(tpe(3), 1, pool=TASK))
        client = await server.connect(hello(0))
        await client.next(Bye)
        failure = report(server).failure
        assert failure is not None
        assert "FloatingPointError: overflow" in failure.message


async def test_tpe_gives_the_same_through_a_new_coordinator(hello: MakeHello) -> None:
    tasks = tpe(16, parallelism=2)
    async with serving(adoption_seconds=0.1) as server:
        server.coordinator.open_pool(assignment(tasks, 1, pool=TASK))
        done = await work(server, hello, 13)
        seen = report(server).tasks
        assert seen is not None
    async with serving(adoption_seconds=0.1) as server:
        server.coordinator.open_pool(
            assignment(tasks, 1, pool=TASK, record=seen.record, began=True)
        )
        done += await work(server, hello, 3)
    assert done == suggested(tasks)


def test_workers_wait_for_a_decision_and_join_no_other_task() -> None:
    found = World(Pool(assignment(tpe(4, parallelism=2), 2), 0.0))
    found.come(0, 1)
    assert len(found.open) == 2
    found.report("p/task-1", eta=60.0, members=1)
    found.decides = False
    found.end("p/task-0")
    assert (list(found.open), found.crew("p/task-1")) == (["p/task-1"], {"w-1"})
    found.decides = True
    found.decide()
    assert {task: len(found.crew(task)) for task in found.open} == {"p/task-1": 1, "p/task-2": 1}


def test_where_there_is_nothing_to_decide_on_workers_join_what_is_under_way() -> None:
    found = World(Pool(assignment(tpe(4, parallelism=2), 2), 0.0))
    found.come(0, 1)
    found.report("p/task-0", eta=60.0, members=1)
    found.end("p/task-1")  # What comes next depends on how the other one ends.
    assert {task: len(found.crew(task)) for task in found.open} == {"p/task-0": 2}


def test_results_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = world(grid(3), 1)
    found.end("p/task-0", 0.25)
    calls = []
    real = Schedule.told
    monkeypatch.setattr(Schedule, "told", lambda self: calls.append(1) or real(self))
    record = found.pool.schedule.record()
    again = Pool(assignment(grid(3), 1, record=record, began=True), 0.0)
    assert (len(calls), again.table.counts["Succeeded"]) == (1, 1)
