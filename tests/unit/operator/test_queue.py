"""The work queue: coalescing, one worker a key, delays and back-off."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest

from shardwise_operator.queue import WorkQueue


@asynccontextmanager
async def working(queue, handle, workers=2):
    tasks = [asyncio.create_task(queue.work(handle)) for _ in range(workers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_additions_of_a_waiting_key_are_one():
    queue, seen, done = WorkQueue(), [], asyncio.Event()

    async def handle(key):
        seen.append(key)
        if key == "last":
            done.set()

    for key in ("a", "a", "a", "b", "last"):
        queue.add(key)
    assert len(queue) == 3
    async with working(queue, handle, workers=1):
        await asyncio.wait_for(done.wait(), 5)
    assert seen == ["a", "b", "last"]


async def test_a_key_added_while_worked_on_is_worked_on_again_but_never_twice_at_once():
    queue, busy, most, runs = WorkQueue(), 0, 0, 0
    started, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(key):
        nonlocal busy, most, runs
        busy += 1
        runs += 1
        most = max(most, busy)
        started.set()
        await go.wait()
        busy -= 1
        if runs == 2:
            done.set()

    queue.add("a")
    async with working(queue, handle):
        await asyncio.wait_for(started.wait(), 5)
        queue.add("a")
        queue.add("a")
        go.set()
        await asyncio.wait_for(done.wait(), 5)
    assert (runs, most) == (2, 1)


async def test_a_failure_comes_back_after_growing_pauses_and_stops_nobody_else():
    queue, attempts, done = WorkQueue(first_pause=0.01, jitter=lambda: 0.5), [], asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handle(key):
        if key == "good":
            return
        attempts.append(loop.time())
        if len(attempts) < 4:
            raise RuntimeError("not yet")
        done.set()

    queue.add("bad")
    queue.add("good")
    async with working(queue, handle, workers=1):
        await asyncio.wait_for(done.wait(), 5)
    pauses = [b - a for a, b in itertools.pairwise(attempts)]
    least = (0.009, 0.019, 0.039)
    assert all(pause >= floor for pause, floor in zip(pauses, least, strict=True))


async def test_a_result_asks_for_another_look():
    queue, runs, done = WorkQueue(), 0, asyncio.Event()

    async def handle(key):
        nonlocal runs
        runs += 1
        if runs == 1:
            return 0.01
        done.set()
        return None

    queue.add("a")
    async with working(queue, handle):
        await asyncio.wait_for(done.wait(), 5)
    assert runs == 2


@pytest.mark.parametrize(("first", "second"), [(60, 0.01), (0.01, 60)])
async def test_the_earliest_of_several_times_counts(first, second):
    queue, done = WorkQueue(), asyncio.Event()

    async def handle(key):
        done.set()

    queue.add_after("a", first)
    queue.add_after("a", second)
    async with working(queue, handle):
        await asyncio.wait_for(done.wait(), 5)
    queue.forget("a")


async def test_a_forgotten_key_does_not_come_back():
    queue = WorkQueue()
    queue.add_after("a", 0)
    queue.forget("a")
    await asyncio.sleep(0)
    assert len(queue) == 0
