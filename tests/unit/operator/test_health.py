"""The probes' port: health is what the watch and the loop say."""

from __future__ import annotations

import asyncio

import aiohttp

from shardwise_operator import health
from shardwise_operator.sites import Site


async def get(port, path):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_each_answer_tells_the_truth():
    state = {"age": 1.0, "lag": 0.0, "missing": ("waiting for the pod watch",)}
    app = health.probes(
        watch_age=lambda: state["age"],
        loop_lag=lambda: state["lag"],
        unready=lambda: state["missing"],
    )
    site = Site(app)
    await site.start(0, host="127.0.0.1")
    try:
        assert await get(site.port, "/healthz") == (200, "ok\n")
        assert await get(site.port, "/readyz") == (503, "waiting for the pod watch\n")
        state["missing"] = ()
        assert await get(site.port, "/readyz") == (200, "ok\n")
        state.update(age=301.0, lag=11.0)
        status, text = await get(site.port, "/healthz")
        assert status == 500
        assert "heard nothing for 301 s" in text
        assert "11.0 s late" in text
        assert (await get(site.port, "/metrics"))[0] == 404  # Not where nobody is asked who he is.
    finally:
        await site.stop()


async def test_the_lag_of_the_loop_is_measured(monkeypatch):
    monkeypatch.setattr(health, "BEAT_SECONDS", 0.0)
    lag = health.LoopLag()
    task = asyncio.create_task(lag.run())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lag.seconds >= 0
