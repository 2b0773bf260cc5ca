"""How often the API server is asked whose a token is, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shardwise_operator import reviews
from shardwise_operator.port import ApiError
from shardwise_operator.reviews import Reviews, TooManyReviews


class Server:
    """Tokens that begin with `pod` are somebody's; each answer waits for `free`."""

    def __init__(self):
        self.asked, self.at_once, self.most = Counter(), 0, 0
        self.free = asyncio.Event()
        self.free.set()
        self.error = None
        self.now = 0.0

    async def review(self, token):
        self.asked[token] += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.free.wait()
            if self.error:
                raise self.error
            return {"authenticated": token.startswith("pod"), "user": {"username": token}}
        finally:
            self.at_once -= 1

    def clock(self):
        return self.now


@pytest.fixture
async def server():
    return Server()


@pytest.fixture
async def subject(server):
    made = Reviews(server.review, server.clock)
    yield made
    made.close()


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_verdict_is_kept_for_a_while(server, subject):
    for token, seconds in (("pod-a", reviews.GOOD_SECONDS), ("junk", reviews.BAD_SECONDS)):
        first = await subject.status(token, "p")
        server.now += seconds - 1
        assert (await subject.status(token, "p"))["authenticated"] == first["authenticated"]
        assert server.asked[token] == 1
        server.now += 2
        await subject.status(token, "p")
        assert server.asked[token] == 2


async def test_one_token_is_asked_for_once_at_a_time(server, subject):
    server.free.clear()
    found = [asyncio.create_task(subject.status("pod-a", f"p{i}")) for i in range(100)]
    await turns()
    assert server.asked == {"pod-a": 1}
    found[0].cancel()  # whoever asked first may go
    server.free.set()
    for task in found[1:]:
        assert (await task)["authenticated"]


async def test_junk_is_asked_for_seldom_and_pushes_no_good_verdict_out(server, subject):
    await subject.status("pod-a", "honest")
    bounced = 0
    for i in range(1000):
        server.now += 0.01
        task = asyncio.create_task(subject.status(f"junk-{i}", "flood"))
        await turns(4)
        if task.done():
            bounced += isinstance(task.exception(), TooManyReviews)
    rate, burst = reviews.PLACE_RATE
    # Those that have to wait are asked for later, in real time.
    assert sum(server.asked.values()) <= 1 + burst + rate * (10 + reviews.LONGEST_SECONDS) + 1
    assert bounced > 500
    await subject.status("pod-a", "honest")
    await subject.status("pod-b", "honest")
    assert (server.asked["pod-a"], server.asked["pod-b"]) == (1, 1)


async def test_workers_of_one_node_may_all_begin_at_once(server, subject):
    found = await asyncio.gather(*(subject.status(f"pod-{i}", "node") for i in range(250)))
    assert all(each["authenticated"] for each in found)
    # Good ones are not held against their place.
    server.now += 60
    found = await asyncio.gather(*(subject.status(f"pod-{i}", "node") for i in range(250)))
    assert len(found) == 250
    assert server.most <= reviews.AT_ONCE


async def test_a_flood_of_another_place_is_not_waited_for(server, subject):
    server.free.clear()
    flood = [asyncio.create_task(subject.status(f"junk-{i}", "flood")) for i in range(200)]
    await turns()
    honest = asyncio.create_task(subject.status("pod-a", "honest"))
    await turns()
    assert sum(server.asked.values()) == reviews.AT_ONCE
    server.free.set()
    await honest
    assert list(server.asked).index("pod-a") <= reviews.AT_ONCE + 1
    await asyncio.gather(*flood)


async def test_so_many_a_second_for_all_places(server, subject):
    found = [asyncio.create_task(subject.status(f"pod-{i}", f"p{i}")) for i in range(500)]
    await turns(300)
    rate, burst = reviews.RATE
    assert burst <= sum(server.asked.values()) <= burst + 1
    server.now += 0.1
    await asyncio.sleep(0.02)
    await turns(50)
    assert burst < sum(server.asked.values()) <= burst + rate * 0.1 + 2
    server.now += 10
    await asyncio.sleep(0.02)
    await asyncio.gather(*found)


async def test_without_an_answer_nothing_is_kept_and_nobody_blamed(server, subject):
    server.error = ApiError(500, "InternalError", "etcd")
    for _ in range(400):
        with pytest.raises(ApiError):
            await subject.status("pod-a", "p")
    server.error = None
    assert (await subject.status("pod-a", "p"))["authenticated"]


async def test_what_is_kept_is_bounded(server, subject, monkeypatch):
    monkeypatch.setattr(reviews, "KEPT", 10)
    monkeypatch.setattr(reviews, "PLACES", 10)
    for i in range(50):
        await subject.status(f"pod-{i}", f"p{i}")
        await subject.status(f"junk-{i}", f"p{i}")
    assert (len(subject._good), len(subject._bad), len(subject._places)) == (10, 10, 10)
    assert not subject._asked


async def test_at_the_end_nothing_is_left(server, subject):
    server.free.clear()
    waits = asyncio.create_task(subject.status("pod-a", "p"))
    await turns()
    subject.close()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert not subject._asked
