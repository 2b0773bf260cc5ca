"""Pools on real sockets: workers wait, are given a task, come again, and are let go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shardwise.coordinator.protocol import (
    Ack,
    Bye,
    Ended,
    Failed,
    Finished,
    Generation,
    Go,
    Ready,
    Stop,
    Welcome,
)
from shardwise.coordinator.report import TaskReport, TasksReport

from .conftest import MakeHello
from .pool_world import assignment, grid, listed
from .serving import TASK, Client, Server, serving, until


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(adoption_seconds=0.3) as made:
        yield made


def opened(server: Server, tasks: dict[str, Any], workers: int, **changes: Any) -> None:
    server.coordinator.open_pool(assignment(tasks, workers, pool=TASK, **changes))


def told(server: Server) -> tuple[TaskReport, TasksReport]:
    report = server.coordinator.report(TASK)
    assert report is not None and report.tasks is not None
    return report, report.tasks


async def begin(client: Client) -> str:
    """Take part in a task up to its go; the task's key."""
    given = (await client.next(Welcome)).assignment
    client.send(Ready(fingerprint={"threads": 1}))
    generation = (await client.next(Generation)).generation
    client.send(Ack(generation=generation, step=0, digest="d"))
    await client.next(Go)
    return given.task


def result(number: int, accuracy: float = 0.5) -> dict[str, Any]:
    figures = {"accuracy": accuracy}
    return {"number": number, "steps": 4, "figures": figures, "weightsSha256": "ab"}


async def test_a_worker_does_one_task_after_the_other(server: Server, hello: MakeHello) -> None:
    opened(server, grid(2), 1)
    for number in range(2):
        client = await server.connect(hello(0))
        assert await begin(client) == f"{TASK}/task-{number}"
        client.send(Finished(result=result(number)))
        await client.next(Bye)
    client = await server.connect(hello(0))
    given = (await client.next(Welcome)).assignment
    assert given.stretch is not None and given.stretch.collect is not None
    client.send(Finished(result={"steps": 8}))
    await client.next(Bye)
    await until(lambda: server.state() == "finished")
    late = await server.connect(hello(0))
    await late.next(Bye)
    report, tasks = told(server)
    assert (report.result, tasks.succeeded) == ({"steps": 8}, 2)


async def test_a_worker_without_a_task_waits_and_may_go(server: Server, hello: MakeHello) -> None:
    opened(server, listed("one"), 2)
    first = await server.connect(hello(0))
    await begin(first)
    second = await server.connect(hello(1))
    await until(lambda: told(server)[0].standbys == ("w-1",))
    await second.close()
    await until(lambda: told(server)[0].standbys == ())
    assert told(server)[0].connected == ("w-0",)


async def test_a_newer_connection_stands_for_a_worker_that_waits(
    server: Server, hello: MakeHello
) -> None:
    opened(server, listed("one", workersPerTask=2), 2)
    former = await server.connect(hello(0))
    await until(lambda: told(server)[0].standbys == ("w-0",))
    latter = await server.connect(hello(0))
    assert await former.ended()
    other = await server.connect(hello(1))
    assert (await latter.next(Welcome)).assignment.workers == 2
    await other.next(Welcome)


async def test_a_failed_task_sends_its_workers_for_the_next_as_new_processes(
    server: Server, hello: MakeHello
) -> None:
    opened(server, listed("bad", "good", workersPerTask=2), 2)
    clients = [await server.connect(hello(index)) for index in range(2)]
    for client in clients:
        await client.next(Welcome)
    clients[0].send(Failed(reason="UserCodeFailed", message="ValueError: no"))
    await clients[0].next(Bye)
    stop = await clients[1].next(Stop)
    assert stop.again
    clients = [await server.connect(hello(index)) for index in range(2)]
    for client in clients:
        assert (await client.next(Welcome)).assignment.task == f"{TASK}/good"
    assert told(server)[1].failed == 1


async def test_a_closed_pool_ends_all_its_workers_for_good(
    server: Server, hello: MakeHello
) -> None:
    opened(server, listed("one"), 2)
    busy = await server.connect(hello(0))
    await busy.next(Welcome)
    waiting = await server.connect(hello(1))
    await until(lambda: told(server)[0].standbys == ("w-1",))
    server.coordinator.close_task(TASK, "JobDeleted", "the job was deleted")
    for client in (busy, waiting):
        stop = await client.next(Stop)
        assert (stop.reason, stop.again) == ("JobDeleted", False)


async def test_a_worker_that_trains_on_is_adopted_by_the_next_coordinator(
    server: Server, hello: MakeHello
) -> None:
    tasks = grid(2)
    opened(server, tasks, 2)
    clients = [await server.connect(hello(index)) for index in range(2)]
    for client in clients:
        await begin(client)
    record = told(server)[1].record
    async with serving(adoption_seconds=0.3) as after:
        opened(after, tasks, 2, record=record, began=True)
        there = {"torch": "2.13.0", "threads": 1}
        back = hello(
            0,
            generation=1,
            phase="training",
            members=("w-0",),
            fingerprint=there,
            step=3,
            task=f"{TASK}/task-0",
        )
        first = await after.connect(back)
        assert (await first.next(Welcome)).assignment.task == f"{TASK}/task-0"
        # The other has ended its task while no coordinator was there.
        ended = Ended(task=f"{TASK}/task-1", result=result(1, 0.9))
        second = await after.connect(hello(1, finished=(ended,)))
        await until(lambda: told(after)[1].succeeded == 1)
        first.send(Finished(result=result(0)))
        await first.next(Bye)
        assert (await second.next(Welcome)).assignment.stretch is not None
        _, seen = told(after)
        assert (seen.succeeded, seen.best and seen.best.name) == (2, "task-1")


async def test_who_comes_back_to_a_task_that_has_ended_is_let_go(
    server: Server, hello: MakeHello
) -> None:
    opened(server, grid(2), 1)
    client = await server.connect(hello(0))
    await begin(client)
    client.send(Finished(result=result(0)))
    await client.next(Bye)
    late = await server.connect(
        hello(0, generation=1, phase="finishing", members=("w-0",), task=f"{TASK}/task-0")
    )
    await late.next(Bye)


async def test_a_lost_pod_is_lost_to_its_task(server: Server, hello: MakeHello) -> None:
    opened(server, listed("one", workersPerTask=2), 2)
    clients = [await server.connect(hello(index)) for index in range(2)]
    for client in clients:
        await client.next(Welcome)
    server.coordinator.lost_worker(TASK, "w-1", "Killed")
    assert await clients[1].ended()
    await until(lambda: told(server)[0].members == ("w-0",))


async def test_a_suspended_pool_lets_everybody_go(server: Server, hello: MakeHello) -> None:
    opened(server, grid(5), 2)
    clients = [await server.connect(hello(index)) for index in range(2)]
    for client in clients:
        await begin(client)
    server.coordinator.drain_task(TASK, "the job is suspended")
    for client in clients:
        generation = await client.next(Generation)
        assert generation.members == ()
    waiting = await server.connect(hello(2))
    await waiting.next(Bye)
