"""The HTTP side: health is what the watch and the loop say; series vanish with their job."""

from __future__ import annotations

import asyncio

import aiohttp
from operator_world import manifest

from shardwise_operator import health
from shardwise_operator.metrics import Metrics, Sources


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


def test_a_jobs_series_vanish_with_it():
    jobs = [manifest()]
    jobs[0]["status"] = {
        "state": "Running",
        "progress": {"step": 5, "totalSteps": 20},
        "workers": {"ready": 4},
    }
    metrics = Metrics()
    metrics.observe(
        Sources(
            jobs=lambda: jobs, queue_depth=lambda: 3, watch_age=lambda: 1.5, loop_lag=lambda: 0.0
        )
    )
    metrics.api_call("get", "200")
    text = metrics.exposition().decode()
    assert 'shardwise_job_progress_ratio{job="digits",namespace="default"} 0.25' in text
    assert 'shardwise_job_workers_ready{job="digits",namespace="default"} 4.0' in text
    assert 'shardwise_jobs{state="Running"} 1.0' in text
    assert "shardwise_queue_depth 3.0" in text
    assert "shardwise_watch_age_seconds 1.5" in text
    assert 'shardwise_api_requests_total{code="200",verb="get"} 1.0' in text
    jobs.clear()
    assert "digits" not in metrics.exposition().decode()
