"""The service on real sockets: what goes where when workers go, come back, and end."""

from __future__ import annotations

import datetime

from shardwise.coordinator.protocol import (
    Ack,
    Activity,
    Bye,
    Failed,
    Generation,
    Go,
    Leave,
    Probe,
    Pulse,
    Refusal,
    Stop,
    Suspect,
    Welcome,
)

from .conftest import MakeAssignment, MakeHello
from .serving import TASK, Server, back, serving


def pulse(nonce: int, activity: Activity, age: float) -> Pulse:
    """A member of the first generation answers a probe."""
    return Pulse(
        nonce=nonce,
        generation=1,
        step=0,
        phase="training",
        activity=activity,
        age_seconds=age,
        usual_seconds=0.1,
    )


async def test_a_worker_that_turns_to_nonsense_is_lost(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.write(b"nonsense\n")
    await clients[1].next(Refusal)
    await clients[1].close()
    assert len((await clients[0].next(Generation)).members) == 1


async def test_the_others_go_on_without_a_worker_that_dies(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.transport.abort()
    generation = await clients[0].next(Generation)
    assert ([m.worker for m in generation.members], generation.soft) == (["w-0"], False)
    clients[0].send(Ack(generation=2, step=7, digest="d"))
    assert (await clients[0].next(Go)).steps == (7,)
    await server.joins(hello(1))
    generation = await clients[0].next(Generation)
    assert ([m.worker for m in generation.members], generation.soft) == (["w-0", "w-1"], True)
    report = server.coordinator.report(TASK)
    assert report is not None
    assert report.recoveries == {"Killed": 1}
    age = datetime.datetime.now(datetime.UTC).timestamp() - report.losses[0].at
    assert -1 < age < 60


async def test_a_worker_that_does_not_answer_is_cut_off(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[0].send(Suspect(generation=1, step=0, waited_seconds=0.2))
    nonce = (await clients[0].next(Probe)).nonce
    assert (await clients[1].next(Probe)).nonce == nonce
    clients[0].send(pulse(nonce, "exchanging", 0.2))
    assert len((await clients[0].next(Generation)).members) == 1
    assert await clients[1].ended()
    # It may come again, with what it holds.
    again = await server.connect(back(hello, 1))
    await again.next(Welcome)
    assert server.state() == "forming"


async def test_a_worker_that_hangs_is_told_to_begin_anew(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[0].send(Suspect(generation=1, step=0, waited_seconds=2.0))
    nonce = (await clients[0].next(Probe)).nonce
    await clients[1].next(Probe)
    clients[0].send(pulse(nonce, "exchanging", 2.0))
    clients[1].send(pulse(nonce, "computing", 2.0))
    stop = await clients[1].next(Stop)
    assert (stop.reason, stop.again) == ("Hung", True)
    assert len((await clients[0].next(Generation)).members) == 1
    clients[1].send(Ack(generation=1, step=9, digest="d"))  # it is out: this means nothing
    assert await clients[1].ended()


async def test_a_pods_end_is_a_loss(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    server.coordinator.lost_worker("no such task", "w-1", "Killed")
    server.coordinator.lost_worker(TASK, "w-1", "Unreachable")
    assert len((await clients[0].next(Generation)).members) == 1
    assert await clients[1].ended()


async def test_resizing_and_draining(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    for task in (TASK, "no such task"):
        server.coordinator.resize_task(task, 2, 1)
        server.coordinator.resize_task(task, 1, 1)
    for client in clients:
        generation = await client.next(Generation)
        assert ([m.worker for m in generation.members], generation.soft) == (["w-0"], True)
    clients[0].send(Ack(generation=2, step=1, digest="d"))
    await clients[0].next(Go)
    clients[1].send(Leave())
    await clients[1].next(Bye)
    for task in (TASK, "no such task"):
        server.coordinator.drain_task(task, "suspended")
    assert (await clients[0].next(Generation)).members == ()
    late = await server.connect(hello(5))
    await late.next(Welcome)
    await late.next(Bye)


async def test_failing_user_code_reaches_the_others(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].send(Failed(reason="UserCodeFailed", message="ValueError: x", detail="Traceback"))
    await clients[1].next(Bye)
    assert (await clients[0].next(Stop)).reason == "UserCodeFailed"


async def test_a_closed_task_stops_its_workers_and_the_late_ones(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    server.coordinator.close_task(TASK, "Deleted", "the job was deleted")
    assert server.coordinator.report(TASK) is None
    for client in clients:
        assert await client.next(Stop) == Stop(reason="Deleted", message="the job was deleted")
    late = await server.connect(back(hello, 0))
    await late.next(Stop)
    done = await server.connect(hello(1, generation=1, phase="finishing"))
    await done.next(Bye)
    server.coordinator.open_task(assignment(1))
    again = await server.connect(hello(0))
    await again.next(Welcome)


async def test_a_new_coordinator_takes_the_running_group_over(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    await server.coordinator.stop()
    for client in clients:
        assert await client.ended()
    async with serving(adoption_seconds=0.5) as second:
        second.coordinator.open_task(assignment(2, generation_floor=1))
        for index in range(2):
            client = await second.connect(back(hello, index))
            await client.next(Welcome)
        assert second.state() == "training"


async def test_members_that_do_not_come_to_a_new_coordinator_are_lost(
    hello: MakeHello, assignment: MakeAssignment
) -> None:
    async with serving(adoption_seconds=0.2) as server:
        server.coordinator.open_task(assignment(2, generation_floor=1))
        client = await server.connect(back(hello, 0))
        await client.next(Welcome)
        assert [m.worker for m in (await client.next(Generation)).members] == ["w-0"]
