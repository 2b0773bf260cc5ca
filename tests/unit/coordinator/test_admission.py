"""Who is let in on a socket, who is refused, and who gets no verdict yet."""

from __future__ import annotations

import asyncio

import pytest

from shardwise.coordinator import Credential, Identity, admission, service
from shardwise.coordinator.protocol import (
    Finished,
    Generation,
    KeyValue,
    Refusal,
    Welcome,
    encode,
)

from .conftest import MakeAssignment, MakeHello
from .serving import TASK, Server, authenticate, back, serving, until


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"token": "wrong"}, "the token is not of this job"),
        ({"protocol": 1}, "speaks protocol 1"),
    ],
)
async def test_workers_that_are_refused_hear_why(
    server: Server,
    hello: MakeHello,
    assignment: MakeAssignment,
    changes: dict[str, object],
    problem: str,
) -> None:
    server.coordinator.open_task(assignment(2))
    client = await server.connect(hello(**{"index": 0, **changes}))
    assert problem in (await client.next(Refusal)).message
    await client.close()


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1\r\n", encode(Finished()), b'{"type":"hello"}\n', b"x" * (3 << 20) + b"\n"],
    ids=["http", "no hello", "no fields", "too long"],
)
async def test_what_is_no_hello_is_refused(server: Server, line: bytes) -> None:
    client = await server.connect()
    client.writer.write(line)
    assert "the coordinator cannot read this" in (await client.next(Refusal)).message


async def test_an_authenticator_that_is_down_gives_no_verdict(
    server: Server,
    hello: MakeHello,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.05)
    client = await server.connect(hello(0, token="down"))
    assert await client.ended()
    assert "secret" not in caplog.text


async def test_a_silent_connection_is_dropped(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "TOKEN_SECONDS", 0.05)
    client = await server.connect()
    assert await client.ended()


async def test_a_worker_waits_for_its_task_to_open(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    client = await server.connect(hello(0))
    await until(lambda: TASK in server.coordinator._opened)
    server.coordinator.open_task(assignment(1))
    await client.next(Welcome)


async def test_a_task_that_does_not_open_gives_no_verdict(
    server: Server, hello: MakeHello, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "OPEN_SECONDS", 0.05)
    client = await server.connect(hello(0))
    assert await client.ended()


async def test_a_newer_connection_stands_for_its_worker(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    newer = await server.connect(back(hello, 1))
    await newer.next(Welcome)
    assert await clients[1].ended()
    clients[0].send(KeyValue(generation=1, key="k", value=b"v"))
    await newer.next(KeyValue)
    # The older connection's end was not taken for a loss.
    report = server.coordinator.report(TASK)
    assert report is not None
    assert report.recoveries == {}
    assert server.state() == "training"


async def test_a_refused_newcomer_leaves_the_older_connection_alone(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    await (await server.connect(hello(0, fingerprint={"torch": "1"}))).next(Refusal)
    clients[0].send(KeyValue(generation=1, key="k", value=b"v"))
    await clients[0].next(KeyValue)


async def test_an_assignment_that_fits_in_no_message_is_refused_at_once(
    server: Server, assignment: MakeAssignment
) -> None:
    with pytest.raises(ValueError, match="longer than"):
        server.coordinator.open_task(assignment(1, trainer={"x": "y" * (1 << 20)}))
    assert server.state() == "none"


async def test_a_slow_authentication_does_not_bring_an_older_connection_back(
    hello: MakeHello, assignment: MakeAssignment
) -> None:
    slow = asyncio.Event()

    async def by_turns(said: Credential) -> Identity:
        if said.token == "slow":
            await slow.wait()
        return await authenticate(said)

    async with serving(authenticate=by_turns) as server:
        server.coordinator.open_task(assignment(1))
        older = await server.connect(hello(0, token="slow"))
        await until(lambda: len(server.coordinator._door._tasks) == 1)
        newer = await server.joins(hello(0))
        slow.set()
        assert await older.ended()
        await newer.next(Generation)
        assert server.state() == "forming"
