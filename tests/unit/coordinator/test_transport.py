"""What connections are made of: TCP, TLS, and workers that take nothing in."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shardwise.coordinator import connection, group
from shardwise.coordinator.protocol import (
    Bye,
    Finished,
    Generation,
    KeyValue,
    Message,
    StepReport,
    Welcome,
    decode,
)

from .conftest import MakeAssignment, MakeHello
from .serving import TASK, Client, Server, serving, until


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
            seconds={"productive": 2.0},
        )
    )
    clients[1].send(Finished())
    clients[0].send(Finished(result={"steps": 10}))
    for client in clients:
        await client.next(Bye)
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
    async with serving(certificate=certificate(tmp_path)) as server:
        server.coordinator.open_task(assignment(2))
        await whole_job(server, hello)
        # Who speaks no TLS gets nowhere, and disturbs nobody.
        plain = Client(*await asyncio.open_connection("127.0.0.1", server.port))
        server.clients.append(plain)
        plain.send(hello(0))
        assert await plain.ended()
        assert server.state() == "finished"


async def test_a_stuck_worker_holds_nobody_up(
    server: Server,
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "OUTGOING_LIMIT", 1 << 20)
    monkeypatch.setattr(group, "RELAY_BYTES", 1 << 30)
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
    assert isinstance(message, Generation) or await clients[0].next(Generation)


async def test_a_worker_that_takes_nothing_in_is_dropped_in_time(
    server: Server,
    hello: MakeHello,
    assignment: MakeAssignment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SEND_SECONDS", 0.1)
    monkeypatch.setattr(group, "RELAY_BYTES", 1 << 30)
    server.coordinator.open_task(assignment(2))
    clients = await server.trained(hello, 2)
    clients[1].writer.transport.pause_reading()  # type: ignore[attr-defined]
    entry = KeyValue(generation=1, key="k", value=bytes(350_000))
    for _ in range(16):
        clients[0].send(entry)
    message: Message = entry
    while isinstance(message, KeyValue):
        message = decode(await clients[0].reader.readline())
    assert isinstance(message, Generation)
    assert len(message.members) == 1


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
