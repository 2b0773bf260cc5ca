"""Who reads the metrics: asked of the API server, remembered, and limited for strangers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from shardwise_operator import access
from shardwise_operator.access import Access
from shardwise_operator.port import ApiError

USERS = {
    "prometheus": {"username": "system:serviceaccount:monitoring:prometheus", "groups": ["g"]},
    "somebody": {"username": "somebody"},
}


class Server:
    """Knows two tokens, of which one's owner may read."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.broken = False
        self.time = 100.0

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        self.calls["token"] += 1
        assert audience == ""
        await asyncio.sleep(0)
        if self.broken:
            raise ApiError(0, "Unreachable", "cut off")
        if token not in USERS:
            return {"error": "no such token"}
        return {"authenticated": True, "user": USERS[token]}

    async def review_access(self, user: Any, path: str) -> dict[str, Any]:
        self.calls["access"] += 1
        assert path == "/metrics"
        return {"allowed": user == USERS["prometheus"]}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def door(server) -> Access:
    return Access(server, lambda: server.time)


@pytest.mark.parametrize(
    ("header", "status", "asked"),
    [
        ("Bearer prometheus", 200, True),
        ("bearer  prometheus", 200, True),
        ("Bearer somebody", 403, True),
        ("Bearer stranger", 401, True),
        ("Bearer \udce4", 401, True),
        ("", 401, False),
        ("Bearer", 401, False),
        ("Bearer ", 401, False),
        ("Basic prometheus", 401, False),
        ("Bearer " + "x" * 20000, 401, False),
    ],
)
async def test_what_each_is_answered(door, server, header, status, asked):
    assert await door.status(header) == status
    assert bool(server.calls["token"]) == asked


async def test_an_answer_is_remembered_for_a_while(door, server):
    for _ in range(100):
        assert await door.status("Bearer prometheus") == 200
    assert server.calls == {"token": 1, "access": 1}
    server.time += access.ALLOWED_SECONDS + 1
    assert await door.status("Bearer prometheus") == 200
    assert server.calls == {"token": 2, "access": 2}


async def test_a_right_that_is_taken_away_ends_with_the_memory_of_it(door, server, monkeypatch):
    assert await door.status("Bearer prometheus") == 200
    monkeypatch.setitem(USERS, "prometheus", {"username": "other"})
    server.time += access.ALLOWED_SECONDS + 1
    monkeypatch.setattr(server, "review_access", lambda *_: asyncio.sleep(0, {"allowed": False}))
    assert await door.status("Bearer prometheus") == 403


async def test_a_hundred_at_once_with_one_token_ask_once(door, server):
    answers = await asyncio.gather(*(door.status("Bearer prometheus") for _ in range(100)))
    assert set(answers) == {200}
    assert server.calls["token"] == 1


async def test_one_that_hangs_up_does_not_end_the_others_wait(door, server):
    first = asyncio.create_task(door.status("Bearer prometheus"))
    second = asyncio.create_task(door.status("Bearer prometheus"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 200


async def test_a_flood_of_strangers_keeps_out_nobody_that_was_let_in(door, server):
    assert await door.status("Bearer prometheus") == 200
    server.time += access.ALLOWED_SECONDS + 1
    answers = [await door.status(f"Bearer {number}") for number in range(5000)]
    assert answers.count(429) >= 4990
    assert server.calls["token"] < 10
    assert await door.status("Bearer prometheus") == 200
    server.time += 1.0
    assert await door.status("Bearer late") == 401  # The budget comes back.


async def test_what_is_remembered_is_bounded_and_strangers_go_first(door, server, monkeypatch):
    monkeypatch.setattr(access, "REMEMBERED", 10)
    assert await door.status("Bearer prometheus") == 200
    for number in range(100):
        server.time += 0.5
        await door.status(f"Bearer {number}")
    assert len(door._answers) == 10
    before = server.calls["token"]
    assert await door.status("Bearer prometheus") == 200
    assert server.calls["token"] == before


async def test_nobody_is_let_in_while_the_api_server_is_away(door, server):
    server.broken = True
    assert await door.status("Bearer prometheus") == 503
    server.broken = False
    assert await door.status("Bearer prometheus") == 200
