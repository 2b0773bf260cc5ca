"""The operator and its coordinator together, with workers that speak the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from toy_cluster import ToyCluster


@pytest_asyncio.fixture
async def toy() -> AsyncIterator[ToyCluster]:
    found = ToyCluster()
    await found.start(workers={"replicas": 3, "min": 1, "max": 5})
    try:
        yield found
    finally:
        await found.stop()


def trains(toy: ToyCluster, workers: int, above: int = 0) -> bool:
    """That many members train, in a generation above that one."""
    found = toy.status.get("workers") or {}
    return (
        toy.status.get("state") == "Running"
        and found.get("members") == workers
        and found.get("generation", 0) > above
    )


async def test_a_killed_worker_is_replaced_and_the_others_go_on(toy):
    await toy.until(lambda: trains(toy, 3))
    generation = toy.status["workers"]["generation"]
    toy.workers["digits-1"].cut()
    await toy.until(lambda: toy.status.get("restarts", {}).get("total") == 1)
    await toy.until(lambda: trains(toy, 3, generation))
    assert toy.status["recoveriesByCause"][0]["cause"] in ("Joined", "Killed")
    assert toy.status["recoveries"] == 1
    assert toy.status["restarts"]["total"] == 1
    assert toy.names() == ["digits-0", "digits-1", "digits-2"]


async def test_a_deleted_worker_leaves_and_costs_nothing(toy):
    await toy.until(lambda: trains(toy, 3))
    generation = toy.status["workers"]["generation"]
    uid = toy.pod("default", "digits-2")["metadata"]["uid"]
    await toy.cluster.delete("pods", "default", "digits-2", uid)
    await toy.until(lambda: trains(toy, 3, generation) and len(toy.names()) == 3)
    assert "restarts" not in toy.status


async def test_scaling_up_and_down(toy):
    await toy.until(lambda: trains(toy, 3))
    await toy.patch(workers={"replicas": 5})
    await toy.until(lambda: trains(toy, 5))
    await toy.patch(workers={"replicas": 2})
    await toy.until(lambda: trains(toy, 2) and len(toy.names()) == 2)
    assert toy.names() == ["digits-0", "digits-1"]
    assert "restarts" not in toy.status
    assert "lastFailure" not in toy.status


async def test_suspend_and_resume(toy):
    await toy.until(lambda: trains(toy, 3))
    generation = toy.status["workers"]["generation"]
    await toy.patch(suspend=True)
    await toy.until(lambda: toy.status["state"] == "Suspended")
    assert toy.names() == []
    await toy.patch(suspend=False)
    await toy.until(lambda: trains(toy, 3, generation))
    assert "lastFailure" not in toy.status


async def test_a_result_ends_the_job(toy):
    await toy.until(lambda: trains(toy, 3))
    toy.workers["digits-0"].finish()
    await toy.until(lambda: toy.status["state"] == "Succeeded")
    assert toy.status["result"]["pod"] == "digits-0"
