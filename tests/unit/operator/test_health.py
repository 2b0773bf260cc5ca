"""The HTTP side: health is what the watch and the loop say."""

from __future__ import annotations

import asyncio

import aiohttp

from shardwise_operator import health
from shardwise_operator.metrics import Metrics


async def get(port, path):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_each_answer_tells_the_truth():
    state = {"age": 1.0, "lag": 0.0, "missing": ("waiting for the pod watch",)}
    metrics = Metrics()
    app = health.application(
        watch_age=lambda: state["age"],
        loop_lag=lambda: state["lag"],
        unready=lambda: state["missing"],
        exposition=metrics.exposition,
    )
    runner = await health.serve(app, 0)
    # Port 0 gives each address family a port of its own.
    port = next(address[1] for address in runner.addresses if address[0] == "0.0.0.0")
    try:
        assert await get(port, "/healthz") == (200, "ok\n")
        assert await get(port, "/readyz") == (503, "waiting for the pod watch\n")
        state["missing"] = ()
        assert await get(port, "/readyz") == (200, "ok\n")
        state.update(age=301.0, lag=11.0)
        status, text = await get(port, "/healthz")
        assert status == 500
        assert "heard nothing for 301 s" in text
        assert "11.0 s late" in text
        status, text = await get(port, "/metrics")
        assert status == 200
        assert "shardwise_build_info" in text
    finally:
        await runner.cleanup()


async def test_the_lag_of_the_loop_is_measured(monkeypatch):
    monkeypatch.setattr(health, "BEAT_SECONDS", 0.0)
    lag = health.LoopLag()
    task = asyncio.create_task(lag.run())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lag.seconds >= 0
