"""The certificate: made once, shared by all, and good for a real TLS handshake."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

import pytest
from fake_cluster import FakeCluster

from shardwise_operator.certificate import ensure_certificate, make_certificate, service_names
from shardwise_operator.settings import CERTIFICATE_SECRET

NOW = datetime.now(UTC)


async def test_it_is_made_once_and_found_again():
    cluster = FakeCluster()
    first = await ensure_certificate(cluster, "ns", ("c.ns.svc",), NOW)
    second = await ensure_certificate(cluster, "ns", ("c.ns.svc",), NOW)
    assert first == second
    assert first.key not in repr(first)
    assert cluster.objects["secrets", "ns", CERTIFICATE_SECRET]["type"] == "kubernetes.io/tls"


async def test_the_quicker_of_two_processes_wins():
    cluster, other = FakeCluster(), FakeCluster()
    theirs = await ensure_certificate(other, "ns", ("c.ns.svc",), NOW)
    secret = other.objects["secrets", "ns", CERTIFICATE_SECRET]
    original = cluster.create

    async def create(kind, namespace, body):
        cluster.objects[kind, namespace, body["metadata"]["name"]] = secret
        return await original(kind, namespace, body)

    cluster.create = create
    assert await ensure_certificate(cluster, "ns", ("c.ns.svc",), NOW) == theirs


async def test_a_secret_of_something_else_is_not_overwritten():
    cluster = FakeCluster()
    body = {"metadata": {"name": CERTIFICATE_SECRET}, "data": {"tls.crt": "eA=="}}
    await cluster.create("secrets", "ns", body)
    with pytest.raises(ValueError, match="delete it"):
        await ensure_certificate(cluster, "ns", ("c.ns.svc",), NOW)


@pytest.mark.parametrize(
    ("name", "strict", "good"),
    [
        ("shardwise-coordinator.ns.svc", False, True),
        ("shardwise-coordinator.ns.svc", True, True),
        ("somewhere.else", False, False),
    ],
)
async def test_a_worker_that_pins_it_connects_by_its_names_only(name, strict, good):
    made = make_certificate(service_names("shardwise-coordinator.ns.svc"), NOW)

    async def hang_up(_, writer):
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=made.server_context())
    context = ssl.create_default_context(cadata=made.certificate)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    port = server.sockets[0].getsockname()[1]
    async with server:
        connecting = asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        if good:
            _, writer = await asyncio.wait_for(connecting, 5)
            writer.close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.wait_for(connecting, 5)


def test_names_of_a_service_and_of_a_plain_host():
    assert service_names("c.ns.svc") == ("c", "c.ns", "c.ns.svc", "c.ns.svc.cluster.local")
    assert service_names("host.example") == ("host.example",)
