"""/metrics over the network: who is answered, how often its text is made, who is hung up on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest_asyncio

from shardwise_operator import sites
from shardwise_operator.certificate import make_certificate
from shardwise_operator.metrics import Metrics, serving
from shardwise_operator.sites import Site


class World:
    """A metrics port on which `good` is the one token that may read."""

    def __init__(self) -> None:
        self.time = 0.0
        self.made = 0
        self.site = Site(serving.application(self.exposition, self.access, lambda: self.time))

    def exposition(self) -> bytes:
        self.made += 1
        return Metrics().exposition()

    async def access(self, authorization: str) -> int:
        return {"Bearer good": 200, "Bearer other": 403}.get(authorization, 401)

    async def get(self, token: str = "", path: str = "/metrics") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.site.port}{path}", headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.site.port)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.site.start(0, host="127.0.0.1")
    try:
        yield made
    finally:
        await made.site.stop()


async def test_only_who_may_read_is_told_and_the_others_why(world):
    status, text = await world.get("good")
    assert status == 200
    assert "shardwise_build_info" in text
    for token, expected, words in (("", 401, "token"), ("other", 403, "metrics-reader")):
        status, text = await world.get(token)
        assert status == expected
        assert words in text
        assert "shardwise_build_info" not in text
    for path in ("/", "/metrics/", "/METRICS", "/healthz"):
        assert (await world.get("good", path))[0] == 404


async def test_the_text_is_made_once_a_second_however_often_it_is_asked_for(world):
    await asyncio.gather(*(world.get("good") for _ in range(100)))
    assert world.made == 1
    await world.get("")
    assert world.made == 1
    world.time += serving.FRESH_SECONDS
    await world.get("good")
    assert world.made == 2


async def test_a_refused_client_is_hung_up_on(world):
    reader, writer = await world.connect()
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 401 " in await asyncio.wait_for(reader.read(), 10)  # To the end of the stream.
    writer.close()


async def test_a_crowd_that_asks_for_nothing_does_not_keep_out_one_that_does(world, monkeypatch):
    monkeypatch.setattr(sites, "WAITING", 8)
    crowd = [await world.connect() for _ in range(40)]
    assert (await world.get("good"))[0] == 200
    assert len(world.site._waiting) <= 8
    assert await asyncio.wait_for(crowd[0][0].read(), 10) == b""  # The oldest was closed.
    for _, writer in crowd:
        writer.close()


async def test_a_connection_that_never_asks_is_closed(world, monkeypatch):
    monkeypatch.setattr(sites, "ASK_SECONDS", 0.05)
    reader, writer = await world.connect()
    writer.write(b"GET /metrics HTTP/1.1\r\n")  # And never the rest.
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert not world.site._waiting
    writer.close()


async def test_with_the_coordinators_certificate_as_the_authority():
    certificate = make_certificate(["shardwise-coordinator.ns.svc"], datetime.now(UTC))
    site = Site(serving.application(Metrics().exposition, None, lambda: 0.0))
    await site.start(0, certificate.server_context(), host="127.0.0.1")
    trusted = ssl.create_default_context(cadata=certificate.certificate)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"https://127.0.0.1:{site.port}/metrics",
                ssl=trusted,
                server_hostname="shardwise-coordinator.ns.svc",
            ) as answer,
        ):
            assert answer.status == 200
    finally:
        await site.stop()
