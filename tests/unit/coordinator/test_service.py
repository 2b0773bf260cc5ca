"""The service on real sockets, plain and TLS: who is let in, what goes where, what ends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shardwise.coordinator import Coordinator, Identity, Refused, connection, service
from shardwise.coordinator.protocol import (
    Ack,
    Bye,
    Failed,
    Finished,
    FromWorker,
    Generation,
    Go,
    Hello,
    KeyValue,
    Message,
    Refusal,
    StepReport,
    Stop,
    Welcome,
    decode,
    encode,
)
from shardwise.coordinator.report import Assignment

TASK = "default/digits"
Kind = TypeVar("Kind", bound=Message)
MakeHello = Callable[..., Hello]
MakeAssignment = Callable[..., Assignment]


async def authenticate(hello: Hello) -> Identity:
    if hello.token == "wrong":
        raise Refused("RefusedWorker", "the token is not of this job")
    if hello.token == "down":
        raise ConnectionError("no API server")
    return Identity(task=TASK, worker=hello.worker, index=hello.index)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.005)


class Client:
    """A worker's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, message: FromWorker) -> None:
        self.writer.write(encode(message))

    async def next(self, kind: type[Kind]) -> Kind:
        async with asyncio.timeout(10):
            line = await self.reader.readline()
        message = decode(line)
        assert isinstance(message, kind), message
        return message

    async def ended(self) -> bool:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                return await self.reader.read() == b""
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                await self.writer.wait_closed()


class Server:
    """A coordinator with one open task, and the clients that a test has connected."""

    def __init__(self, coordinator: Coordinator, changes: list[str]) -> None:
        self.coordinator = coordinator
        self.changes = changes
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.clients: list[Client] = []

    async def connect(self, hello: Hello | None = None) -> Client:
        name = "coordinator.test" if self.tls else None
        client = Client(
            *await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.tls, server_hostname=name, limit=1 << 21
            )
        )
        self.clients.append(client)
        if hello is not None:
            client.send(hello)
        return client

    async def trained(self, hello: MakeHello, workers: int) -> list[Client]:
        """Connected workers that were sent their go."""
        clients = [await self.connect(hello(index)) for index in range(workers)]
        for client in clients:
            await client.next(Welcome)
            generation = (await client.next(Generation)).generation
            client.send(Ack(generation=generation, step=0, digest="d"))
        for client in clients:
            await client.next(Go)
        return clients

    def state(self) -> str:
        report = self.coordinator.report(TASK)
        return "none" if report is None else report.state


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    changes: list[str] = []
    coordinator = Coordinator(
        authenticate=authenticate, on_change=changes.append, grace_seconds=0.3
    )
    made = Server(coordinator, changes)
    made.port = await coordinator.start("127.0.0.1", 0)
    yield made
    for client in made.clients:
        await client.close()
    await coordinator.stop()


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a self-signed certificate, and a client's that pins it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator.test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("coordinator.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    path = folder / "tls.pem"
    path.write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context, ssl.create_default_context(cadata=pem.decode())


async def whole_job(server: Server, hello: MakeHello) -> None:
    clients = await server.trained(hello, 2)
    pushed = KeyValue(generation=1, key="rank0", value=b"\x00address")
    clients[0].send(pushed)
    for client in clients:
        assert await client.next(KeyValue) == pushed
    clients[0].send(
        StepReport(
            generation=1,
            step=5,
            total_steps=10,
            epoch=0,
            loss=0.5,
            samples_per_second=100.0,
            metrics={"accuracy": 0.9},
        )
    )
    clients[1].send(Finished())
    await clients[1].next(Bye)
    await clients[1].close()
    clients[0].send(Finished(result={"steps": 10}))
    await clients[0].next(Bye)
    report = server.coordinator.report(TASK)
    assert report is not None
    assert (report.state, report.generation, report.result) == ("finished", 1, {"steps": 10})
    assert report.progress is not None
    assert report.progress.metrics == {"accuracy": 0.9}
    age = datetime.datetime.now(datetime.UTC).timestamp() - report.progress.at
    assert -1 < age < 60
    await until(lambda: TASK in server.changes)


async def test_a_job_over_plain_tcp(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    server.coordinator.open_task(assignment(2))
    await whole_job(server, hello)


async def test_a_job_over_tls(tmp_path: Path, hello: MakeHello, assignment: MakeAssignment) -> None:
    changes: list[str] = []
    coordinator = Coordinator(authenticate=authenticate, on_change=changes.append)
    server = Server(coordinator, changes)
    serving, server.tls = certificate(tmp_path)
    server.port = await coordinator.start("127.0.0.1", 0, ssl=serving)
    try:
        coordinator.open_task(assignment(2))
        await whole_job(server, hello)
        # Who speaks no TLS gets nowhere, and disturbs nobody.
        plain = Client(*await asyncio.open_connection("127.0.0.1", server.port))
        server.clients.append(plain)
        plain.send(hello(0))
        async with asyncio.timeout(10):
            await plain.reader.read()
        assert server.state() == "finished"
    finally:
        for client in server.clients:
            await client.close()
        await coordinator.stop()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"token": "wrong"}, "the token is not of this job"),
        ({"protocol": 2}, "speaks protocol 2"),
        ({"index": 7}, "index 7 is not below"),
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


async def test_a_worker_that_turns_to_nonsense_is_lost(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.write(b"nonsense\n")
    await clients[1].next(Refusal)
    assert (await clients[0].next(Stop)).reason == "WorkerLost"


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
    monkeypatch.setattr(service, "HELLO_SECONDS", 0.05)
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
    newer = await server.connect(hello(1, generation=1, phase="training"))
    await newer.next(Welcome)
    assert await clients[1].ended()
    clients[0].send(KeyValue(generation=1, key="k", value=b"v"))
    await newer.next(KeyValue)
    # The older connection's end was not taken for a loss.
    assert server.coordinator._tasks[TASK].group.next_deadline() is None
    assert server.state() == "training"


async def test_a_refused_newcomer_leaves_the_older_connection_alone(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(1))
    (client,) = await server.trained(hello, 1)
    await (await server.connect(hello(0))).next(Refusal)
    client.send(KeyValue(generation=1, key="k", value=b"v"))
    await client.next(KeyValue)


async def test_a_worker_that_dies_fails_the_task(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.transport.abort()
    stop = await clients[0].next(Stop)
    assert stop.reason == "WorkerLost"
    assert "w-1" in stop.message
    assert server.state() == "failed"
    late = await server.connect(hello(1, generation=1, phase="training"))
    await late.next(Stop)


async def test_failing_user_code_reaches_the_others(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].send(Failed(reason="UserCodeFailed", message="ValueError: x", detail="Traceback"))
    await clients[1].next(Bye)
    assert (await clients[0].next(Stop)).reason == "UserCodeFailed"


async def test_a_stuck_worker_holds_nobody_up(
    server: Server,
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "OUTGOING_LIMIT", 1 << 20)
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.transport.pause_reading()  # type: ignore[attr-defined]
    entry = KeyValue(generation=1, key="k", value=bytes(300_000))
    with caplog.at_level(logging.WARNING, "shardwise.coordinator.connection"):
        for _ in range(100):
            clients[0].send(entry)
            message = decode(await clients[0].reader.readline())
            if not isinstance(message, KeyValue):
                break
    assert "bytes wait for it" in caplog.text
    assert isinstance(message, Stop) or (await clients[0].next(Stop)).reason == "WorkerLost"


async def test_a_worker_that_takes_nothing_in_is_dropped_in_time(
    server: Server,
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SEND_SECONDS", 0.1)
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.transport.pause_reading()  # type: ignore[attr-defined]
    entry = KeyValue(generation=1, key="k", value=bytes(700_000))
    for _ in range(8):
        clients[0].send(entry)
    for _ in range(8):
        await clients[0].next(KeyValue)
    assert (await clients[0].next(Stop)).reason == "WorkerLost"


async def test_a_closed_task_stops_its_workers_and_the_late_ones(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    server.coordinator.close_task(TASK, "Deleted", "the job was deleted")
    assert server.coordinator.report(TASK) is None
    for client in clients:
        assert await client.next(Stop) == Stop(reason="Deleted", message="the job was deleted")
    late = await server.connect(hello(0, generation=1, phase="training"))
    await late.next(Stop)
    done = await server.connect(hello(1, generation=1, phase="finished"))
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
    second = Coordinator(authenticate=authenticate, on_change=server.changes.append)
    port = await second.start("127.0.0.1", 0)
    try:
        second.open_task(assignment(2))
        server.coordinator, server.port = second, port
        for index in range(2):
            client = await server.connect(hello(index, generation=1, phase="training", step=9))
            await client.next(Welcome)
        assert server.state() == "training"
    finally:
        await second.stop()


async def test_an_assignment_that_fits_in_no_message_is_refused_at_once(
    server: Server, assignment: MakeAssignment
) -> None:
    with pytest.raises(ValueError, match="longer than"):
        server.coordinator.open_task(assignment(1, trainer={"x": "y" * (1 << 20)}))
    assert server.state() == "none"


async def test_sockets_send_at_once_and_notice_silent_machines(
    server: Server, hello: MakeHello, assignment: MakeAssignment
) -> None:
    server.coordinator.open_task(assignment(1))
    client = await server.connect(hello(0))
    await client.next(Welcome)
    held = server.coordinator._tasks[TASK].connections["w-0"]
    sock = held._writer.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_a_slow_authentication_does_not_bring_an_older_connection_back(
    hello: MakeHello, assignment: MakeAssignment
) -> None:
    slow = asyncio.Event()

    async def by_turns(said: Hello) -> Identity:
        if said.token == "slow":
            await slow.wait()
        return await authenticate(said)

    coordinator = Coordinator(authenticate=by_turns, on_change=lambda task: None)
    server = Server(coordinator, [])
    server.port = await coordinator.start("127.0.0.1", 0)
    try:
        coordinator.open_task(assignment(1))
        older = await server.connect(hello(0, token="slow"))
        await until(lambda: len(coordinator._handlers) == 1)
        newer = await server.connect(hello(0))
        await newer.next(Welcome)
        slow.set()
        assert await older.ended()
        await newer.next(Generation)
        assert server.state() == "forming"
    finally:
        for client in server.clients:
            await client.close()
        await coordinator.stop()
