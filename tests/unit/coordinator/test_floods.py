"""What a worker that is known may do to others: nothing, whatever it says and however much."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardwise.coordinator import Credential, Identity, budget, connection, group, service
from shardwise.coordinator.protocol import (
    Ack,
    CheckpointReport,
    Failed,
    Fault,
    Finished,
    FromWorker,
    Generation,
    Hello,
    KeyValue,
    Leave,
    Message,
    Pulse,
    Ready,
    Refusal,
    StepReport,
    Suspect,
    Welcome,
    encode,
)

from .conftest import MakeAssignment, MakeHello, make_assignment, make_hello
from .serving import TASK, Server, serving, until
from .test_protocol import messages

OTHER = "default/other"
PULSE = Pulse(
    nonce=0,
    generation=0,
    step=0,
    phase="training",
    activity="computing",
    age_seconds=0,
    usual_seconds=0,
)


async def by_job(credential: Credential) -> Identity:
    """Tokens of two jobs."""
    job, _, index = credential.token.partition("-")
    task = OTHER if job == "other" else TASK
    return Identity(task=task, worker=f"w-{index}", index=int(index))


async def test_a_flood_is_heard_at_the_rate_of_its_budget(
    hello: MakeHello, assignment: MakeAssignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "WORKER_MESSAGES", (20.0, 50.0))
    heard = 0
    decode = connection.decode

    def counted(line: bytes) -> Message:
        nonlocal heard
        heard += 1
        return decode(line)

    monkeypatch.setattr(connection, "decode", counted)
    async with serving(authenticate=by_job) as server:
        for task in (TASK, OTHER):
            server.coordinator.open_task(assignment(1, task=task))
        flooder = await server.connect(hello(0, token="digits-0"))
        await flooder.next(Welcome)
        began = asyncio.get_running_loop().time()
        flooder.writer.write(encode(PULSE) * 20_000)
        # The budget of one job is no other's: a second job's worker comes and goes meanwhile.
        for index in range(8):
            other = await server.connect(hello(index, token=f"other-{index}"))
            await other.next(Welcome)
            await other.close()
        await until(lambda: heard > 60)
        passed = asyncio.get_running_loop().time() - began
        assert heard - 9 <= 50 + 20 * passed + 1
        assert server.state() == "waiting"


async def test_who_floods_on_is_refused_and_its_job_ends_with_the_reason(
    hello: MakeHello, assignment: MakeAssignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "WORKER_MESSAGES", (1000.0, 50.0))
    monkeypatch.setattr(budget, "FLOOD_SECONDS", 0.2)
    async with serving(authenticate=by_job) as server:
        for task in (TASK, OTHER):
            server.coordinator.open_task(assignment(1, task=task))
        other = await server.connect(hello(0, token="other-0"))
        flooder = await server.connect(hello(0, token="digits-0"))
        await other.next(Welcome)
        await flooder.next(Welcome)
        flooder.writer.write(encode(PULSE) * 5_000)
        refusal = await flooder.next(Refusal)
        assert (refusal.reason, "messages or" in refusal.message) == ("RefusedWorker", True)
        report = server.coordinator.report(TASK)
        assert report is not None
        assert report.failure is not None
        assert report.failure.reason == "RefusedWorker"
        assert "w-0 was refused: the worker has sent more than" in report.failure.message
        rest = server.coordinator.report(OTHER)
        assert rest is not None
        assert (rest.state, rest.connected) == ("waiting", ("w-0",))


@pytest.mark.parametrize("size", [525_000, 700_000])
async def test_a_line_that_is_too_long_is_refused_with_the_limit(
    server: Server, hello: MakeHello, assignment: MakeAssignment, size: int
) -> None:
    server.coordinator.open_task(assignment(1))
    client = await server.connect(hello(0))
    await client.next(Welcome)
    client.send(Finished(result={"path": "p" * size}))
    assert "longer than 524288 bytes" in (await client.next(Refusal)).message


async def test_what_is_relayed_to_all_is_bounded(
    server: Server,
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group, "RELAY_BYTES", 1000)
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    entry = KeyValue(generation=1, key="k", value=bytes(600))
    clients[0].send(entry)
    for client in clients:
        assert await client.next(KeyValue) == entry
    clients[0].send(entry)
    assert "more than 1000" in (await clients[0].next(Refusal)).message
    assert server.state() == "failed"


async def test_who_takes_least_goes_where_too_much_waits_for_a_job(
    server: Server,
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service, "OUTGOING_BYTES", 1 << 20)
    monkeypatch.setattr(group, "RELAY_BYTES", 1 << 30)
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.transport.pause_reading()  # type: ignore[attr-defined]
    message: Message | None = None
    for _ in range(100):
        clients[0].send(KeyValue(generation=1, key="k", value=bytes(300_000)))
        message = await clients[0].next(KeyValue | Generation)  # type: ignore[arg-type]
        if isinstance(message, Generation):
            break
    assert isinstance(message, Generation)
    assert "bytes wait" in caplog.text


async def test_lines_without_an_end_are_bounded_for_all_workers_of_a_job(
    hello: MakeHello, assignment: MakeAssignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HELD_BYTES", 500_000)
    async with serving(authenticate=by_job) as server:
        for task in (TASK, OTHER):
            server.coordinator.open_task(assignment(3, task=task))
        other = await server.connect(hello(0, token="other-0"))
        other.writer.write(b"x" * 200_000)
        found = [await server.connect(hello(index, token=f"digits-{index}")) for index in range(3)]
        for client in found:
            await client.next(Welcome)
            client.writer.write(b"x" * 200_000)
        await until(lambda: server.state() == "failed")
        for client in found:
            await client.close()
        await until(lambda: server.coordinator._budgets[TASK].held == 0)
        rest = server.coordinator.report(OTHER)
        assert rest is not None
        assert rest.connected == ("w-0",)
        assert server.coordinator._budgets[OTHER].held == 200_000


async def test_news_of_a_task_are_told_now_and_then(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(1))
    client = await server.connect(hello(0))
    await client.next(Welcome)
    began, before = asyncio.get_running_loop().time(), len(server.changes)
    for number in range(500):
        client.send(CheckpointReport(step=1, bytes=1, seconds=1.0, error=f"no room {number}"))

    def last() -> bool:
        report = server.coordinator.report(TASK)
        return bool(report and report.checkpoint and report.checkpoint.error == "no room 499")

    await until(last)
    passed = asyncio.get_running_loop().time() - began
    assert len(server.changes) - before <= passed / service.CHANGE_SECONDS + 2
    told = len(server.changes)
    await until(lambda: len(server.changes) > told or not server.coordinator._changed)


small = st.integers(0, 3)
texts = st.text(max_size=5)
from_workers: st.SearchStrategy[Any] = st.one_of(
    messages().filter(lambda message: isinstance(message, FromWorker)),
    st.builds(Ready, fingerprint=st.just({"threads": 1})),
    st.builds(Ack, generation=small, step=small, digest=texts),
    st.builds(Fault, generation=small, message=texts, peer=st.sampled_from(["w-0", "w-9", None])),
    st.builds(Suspect, generation=small, step=small, waited_seconds=st.floats(0, 1e9)),
    st.builds(KeyValue, generation=small, key=texts, value=st.binary(max_size=5)),
    st.builds(CheckpointReport, step=small, bytes=small, seconds=st.floats(0, 1e9), error=texts),
    st.just(Leave()),
    st.just(PULSE),
    st.builds(Finished, result=st.none() | st.just({"steps": 1})),
    st.builds(Failed, reason=texts, message=texts),
    st.builds(
        StepReport,
        generation=small,
        step=small,
        total_steps=small,
        epoch=small,
        loss=st.floats(),
        samples_per_second=st.floats(0, 1e12),
        metrics=st.dictionaries(texts, st.floats(), max_size=3),
        seconds=st.dictionaries(texts, st.floats(0, 1e9), max_size=3),
    ),
)
hellos = st.builds(
    Hello,
    token=st.just("digits-1"),
    worker=st.sampled_from(["w-1", "w-0"]),
    index=st.sampled_from([1, 0]),
    fingerprint=st.sampled_from([{"torch": "2.13.0", "threads": 1}, {"torch": "1"}]),
    generation=st.sampled_from([0, 1, 2, 2**40]),
    phase=st.sampled_from(["loading", "ready", "forming", "training", "finishing"]),
    step=st.sampled_from([0, 5, 2**40]),
    members=st.sampled_from([(), ("w-0", "w-1"), ("w-9",), ("w-1", "w-1")]),
    task=texts,
    last_end=texts,
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(hello=hellos, said=st.lists(from_workers, max_size=12))
def test_whatever_a_worker_says_the_others_group_goes_on(
    hello: Hello, said: list[FromWorker], caplog: pytest.LogCaptureFixture
) -> None:
    """One job's worker says anything at all; another job's group does not notice."""

    async def run() -> None:
        async with serving(authenticate=by_job) as server:
            for task in (TASK, OTHER):
                server.coordinator.open_task(make_assignment(2, task=task, gather_seconds=0.01))
            others = [
                await server.joins(make_hello(index, token=f"other-{index}")) for index in range(2)
            ]
            mate = await server.joins(make_hello(0, token="digits-0"))
            odd = await server.connect(hello)
            for message in said:
                odd.send(message)
            await asyncio.sleep(0.02)
            for client in others:
                generation = (await client.next(Generation)).generation
                client.send(Ack(generation=generation, step=0, digest="d"))

            def trains() -> bool:
                report = server.coordinator.report(OTHER)
                return report is not None and report.state == "training"

            await until(trains)
            report = server.coordinator.report(TASK)
            assert report is not None
            assert report.generation < 2**53
            await mate.close()

    caplog.clear()
    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert not caplog.records, caplog.text
