"""The operator and its coordinator with a job of many tasks, whose workers speak the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from toy_pool import PoolToy

TASKS = 12
SWEEP = {
    "sweep": {"parameters": [{"name": "hidden", "values": list(range(1, TASKS + 1))}]},
    "objectives": [{"metric": "accuracy", "direction": "Maximize"}],
    "workersPerTask": 1,
}


@pytest_asyncio.fixture
async def toy() -> AsyncIterator[PoolToy]:
    found = PoolToy()
    await found.start(workers={"replicas": 3}, tasks=SWEEP)
    try:
        yield found
    finally:
        await found.stop()


def tasks(toy: PoolToy) -> dict:
    return toy.status.get("tasks") or {}


def at_work(toy: PoolToy, running: int, ended: int = 0) -> bool:
    found = tasks(toy)
    counts = (found.get("running"), found.get("succeeded"))
    return toy.status.get("state") == "Running" and counts == (running, ended)


async def until_it_ends(toy: PoolToy) -> None:
    toy.let(TASKS)
    await toy.until(lambda: toy.status["state"] in ("Succeeded", "Failed"), 40)
    assert toy.status["state"] == "Succeeded", toy.status["message"]
    assert tasks(toy)["summary"] == f"{TASKS}/{TASKS}"
    assert tasks(toy)["succeeded"] == TASKS
    # None was lost, and none was done twice.
    assert toy.ended == {f"task-{n}": 1 for n in range(TASKS)}


async def test_all_tasks_are_done_by_the_same_pods(toy):
    await toy.until(lambda: at_work(toy, 3))
    assert toy.status["state"] == "Running"
    assert toy.status["message"] == f"3 workers at 3 of {TASKS} tasks; 0 ended"
    toy.let(4)
    await toy.until(lambda: at_work(toy, 3, 4))
    assert toy.status["state"] == "Running"
    await until_it_ends(toy)
    assert toy.names() == ["digits-0", "digits-1", "digits-2"]
    assert "restarts" not in toy.status
    assert toy.status["result"]["pod"].startswith("digits-")


@pytest.mark.parametrize("listens", [True, False])
async def test_a_new_operator_goes_on_where_the_former_was(toy, listens):
    await toy.until(lambda: at_work(toy, 3))
    toy.let(4)
    await toy.until(lambda: at_work(toy, 3, 4))
    record = tasks(toy)["record"]
    await toy.coordination.stop()
    if not listens:  # tasks end while nobody is there to be told
        toy.let(2)
    toy.start_operator()
    await toy.listen()
    await toy.until(lambda: tasks(toy)["record"] != record or tasks(toy)["running"] == 3)
    assert toy.status["state"] == "Running"
    await until_it_ends(toy)
    assert toy.names() == ["digits-0", "digits-1", "digits-2"]


async def test_a_killed_worker_costs_its_own_task_alone(toy):
    await toy.until(lambda: at_work(toy, 3))
    toy.workers["digits-1"].cut()
    toy.tasks["digits-1"].cancel()
    await toy.until(lambda: toy.pod("default", "digits-1") is not None)
    pod = toy.pod("default", "digits-1")
    ended = {"exitCode": 137, "finishedAt": pod["metadata"]["creationTimestamp"], "message": ""}
    pod["status"] = {
        "phase": "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
    }
    await toy.until(lambda: at_work(toy, 3) and toy.status["restarts"]["total"] == 1)
    await until_it_ends(toy)


async def test_suspend_and_resume(toy):
    await toy.until(lambda: at_work(toy, 3))
    toy.let(5)
    await toy.until(lambda: at_work(toy, 3, 5))
    await toy.patch(suspend=True)
    await toy.until(lambda: toy.status["state"] == "Suspended" and not toy.names())
    assert tasks(toy)["succeeded"] == 5
    await toy.patch(suspend=False)
    await toy.until(lambda: at_work(toy, 3, 5))
    await until_it_ends(toy)
