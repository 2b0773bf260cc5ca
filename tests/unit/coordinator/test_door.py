"""Strangers at the door: bounded in number, bytes and time; honest workers come in beside them."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardwise.coordinator import Credential, Identity, Refused, admission, door, service
from shardwise.coordinator.connection import UNKNOWN_BYTES, Connection
from shardwise.coordinator.door import Limits
from shardwise.coordinator.protocol import Refusal, Welcome, decode

from .conftest import MakeAssignment, MakeHello, make_assignment, make_hello
from .serving import TASK, Client, Server, authenticate, serving, until
from .test_transport import certificate

FEW = Limits(waiting=32, unknown=8, handshakes=2)
HELLO = b'{"type":"hello","token":"%b","worker":"w","index":0,"fingerprint":{}}\n'
FAT = b'{"type":"hello","token":"wrong","worker":"w","index":0,"fingerprint":{' + b",".join(
    b'"%06d":0' % i for i in range(90_000)
)


async def strangers(server: Server, count: int, *, tls: bool, says: bytes = b"") -> None:
    """Connections that say this and then nothing; those that are turned away are no error."""

    async def one() -> None:
        context = server.tls if tls else None
        name = "coordinator.test" if tls else None
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=context, server_hostname=name
            )
        except OSError:
            return
        server.clients.append(Client(reader, writer))
        writer.write(says)

    await asyncio.gather(*(one() for _ in range(count)))


@pytest.mark.parametrize(
    ("tls", "says"),
    [
        (False, b""),
        (True, b""),
        (True, b'{"type":"hello","tok'),
        (False, b"\x16\x03\x01"),
        (False, b"\x16\x03\x01\x00\x20" + bytes(8)),
        (False, b"\x16\x03\x01\x00\x04" + bytes(4)),
        (False, b"GET / HTTP/1.1\r\n\r\n"),
    ],
    ids=["silent", "silent in TLS", "half a hello", "header", "half", "nonsense", "http"],
)
async def test_strangers_are_bounded_and_honest_workers_come_in(
    tls: bool, says: bytes, tmp_path: Path, hello: MakeHello, assignment: MakeAssignment
) -> None:
    async with serving(certificate=certificate(tmp_path), limits=FEW) as server:
        server.coordinator.open_task(assignment(2))
        at_door = server.coordinator._door
        for index in range(2):
            await strangers(server, 100, tls=tls, says=says)
            counts = at_door.counts
            assert counts["silent"] + counts["ready"] <= FEW.waiting
            assert counts["unknown"] <= FEW.unknown
            client = await server.connect(hello(index))
            await client.next(Welcome)
        # Who is in stays in, whatever comes after.
        await strangers(server, 100, tls=tls, says=says)
        assert at_door.counts["known"] == 2
        if says[:3] != b"GET" and says[4:5] != b"\x04":  # These end by themselves.
            assert at_door.turned_away > 100


@pytest.mark.parametrize(
    "says",
    [FAT, b"x" * (1 << 20), HELLO % (b"x" * 900_000), HELLO % b"wrong" * 100],
    ids=["many keys", "no newline", "a long token", "many lines"],
)
async def test_floods_are_refused_by_their_first_bytes(
    says: bytes,
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []

    def spy(line: bytes) -> object:
        parsed.append(line)
        return decode(line)

    monkeypatch.setattr("shardwise.coordinator.connection.decode", spy)
    monkeypatch.setattr(service, "STRANGER_SECONDS", 0.05)
    async with serving(limits=FEW) as server:
        server.coordinator.open_task(assignment(1))
        for _ in range(4):
            flooder = await server.connect()
            flooder.writer.write(says)
            assert isinstance(await flooder.next(Refusal), Refusal)
        assert parsed == []
        client = await server.connect(hello(0))
        await client.next(Welcome)
        assert len(parsed) == 1
        await until(lambda: server.coordinator._door.counts["unknown"] == 0)


async def test_no_more_than_the_token_is_read_before_the_verdict(
    assignment: MakeAssignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Kept(Connection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(service, "Connection", Kept)
    asked = asyncio.Event()
    verdict = asyncio.Event()

    async def slow(credential: Credential) -> Identity:
        assert credential.place == "127.0.0.1"
        asked.set()
        await verdict.wait()
        return await authenticate(credential)

    async with serving(authenticate=slow) as server:
        server.coordinator.open_task(assignment(1))
        client = await server.connect()
        client.writer.write(HELLO % b"wrong" + b"x" * (4 << 20))
        await asked.wait()
        # The rest stays with its sender: TCP takes no more of it.
        (connection,) = made
        assert len(connection._rest) <= UNKNOWN_BYTES
        assert len(connection._reader._buffer) <= 3 * UNKNOWN_BYTES  # asyncio's, before it pauses
        verdict.set()
        await client.next(Refusal)


async def test_who_waits_for_our_verdict_does_not_make_room(
    hello: MakeHello, assignment: MakeAssignment, tmp_path: Path
) -> None:
    verdict = asyncio.Event()

    async def slow(credential: Credential) -> Identity:
        await verdict.wait()
        return await authenticate(credential)

    async with serving(authenticate=slow, certificate=certificate(tmp_path), limits=FEW) as server:
        server.coordinator.open_task(assignment(FEW.unknown))
        honest = [await server.connect(hello(index)) for index in range(FEW.unknown)]
        stages = server.coordinator._door
        await until(lambda: len(stages._unknown) == FEW.unknown and not stages._shaking)
        await strangers(server, 20, tls=False, says=b"\x16")
        verdict.set()
        for client in honest:
            await client.next(Welcome)


async def test_who_says_nothing_is_dropped_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "SILENT_SECONDS", 0.1)
    client = await server.connect()
    assert await client.ended()
    assert server.coordinator._door.counts["silent"] == 0


async def test_half_a_hello_is_dropped_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "TOKEN_SECONDS", 0.05)
    client = await server.connect()
    client.writer.write(b'{"type":"hello"')
    assert await client.ended()


async def test_without_descriptors_it_pauses_and_goes_on(
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        server.coordinator.open_task(assignment(1))
        accept, tries = socket.socket.accept, 0

        def none_left(listener: socket.socket) -> tuple[socket.socket, object]:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise OSError(24, "Too many open files")
            return accept(listener)

        monkeypatch.setattr(socket.socket, "accept", none_left)
        client = await server.connect(hello(0))
        await client.next(Welcome)
    assert caplog.text.count("Too many open files") == 2


async def test_beyond_the_most_known_ones_a_worker_has_to_wait(
    hello: MakeHello, assignment: MakeAssignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.05)
    async with serving(limits=Limits(known=1)) as server:
        server.coordinator.open_task(assignment(2))
        first = await server.connect(hello(0))
        await first.next(Welcome)
        assert await (await server.connect(hello(1))).ended()
        await first.close()
        await until(lambda: server.coordinator._door.counts["known"] == 0)
        await (await server.connect(hello(1))).next(Welcome)


async def test_a_worker_holds_few_connections_without_a_place(
    hello: MakeHello, assignment: MakeAssignment
) -> None:
    async with serving() as server:
        for _ in range(12):
            await server.connect(hello(0, token="w-0"))
        stages = server.coordinator._door
        await until(lambda: stages.counts["known"] == service.COMING)
        server.coordinator.open_task(assignment(1))
        await server.clients[-1].next(Welcome)


@pytest.mark.parametrize(
    ("descriptors", "known"), [(1024, 480), (20_000, 15_392), (1 << 20, 1 << 19), (-1, 1 << 20)]
)
def test_all_stages_fit_into_the_descriptors(descriptors: int, known: int) -> None:
    limits = Limits.of(descriptors)
    assert limits.known >= known
    if descriptors > 0:
        assert limits.waiting + limits.unknown + limits.known < descriptors


lines = st.binary(max_size=300) | st.sampled_from(
    [HELLO % b"w-0", HELLO % b"wrong", HELLO[:30], b'{"type": "hello", "token": "w-0"', b"\n"]
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(lines, max_size=4), abort=st.booleans())
def test_any_bytes_harm_nobody(
    parts: list[bytes], abort: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def visit() -> None:
        async with serving() as server:
            server.coordinator.open_task(make_assignment(2))
            honest = await server.connect(make_hello(1))
            await honest.next(Welcome)
            client = await server.connect()
            for part in parts:
                client.writer.write(part)
            if abort:
                client.writer.transport.abort()
            elif client.writer.can_write_eof():
                client.writer.write_eof()
            await asyncio.sleep(0)
            assert server.coordinator.report(TASK) is not None
            assert "w-1" in server.coordinator._tasks[TASK].connections

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        asyncio.run(visit())
    assert "Traceback" not in caplog.text


async def test_refusals_say_what_is_expected(server: Server) -> None:
    client = await server.connect()
    client.writer.write(b'{"token":"w-0","type":"hello"}\n')
    assert '{"type":"hello","token":"' in (await client.next(Refusal)).message


def test_a_credential_does_not_show_its_token() -> None:
    assert "secret" not in repr(Credential(token="secret", place="10.0.0.1"))
    assert issubclass(Refused, Exception)
