"""The operator's process in the election: it stands by, leads, hands over, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from fake_cluster import FakeCluster

from shardwise_operator import __main__ as process
from shardwise_operator.leader import EXIT_LOST, Candidate, Terms
from shardwise_operator.metrics import Metrics
from shardwise_operator.port import ApiError
from shardwise_operator.settings import Settings

NAMESPACE, LEASE, SERVICE = "shardwise-system", "shardwise", "shardwise-coordinator"
ME, OTHER = "pod-a_uid-a", "pod-b_uid-b"
QUICK = Terms(duration_seconds=0.6, renew_seconds=0.4, retry_seconds=0.05)

PORTS = {"health_port": 0, "metrics_port": 0, "coordinator_port": 0}


class ClosableCluster(FakeCluster):
    closed = False

    async def close(self) -> None:
        self.closed = True


class WithoutKopf(process.Operator):
    """kopf wants a real API server; all else is as it is."""

    async def _kopf(self, stop: asyncio.Event) -> None:
        self.missing.discard("the job watch")
        await stop.wait()


def operator(cluster: ClosableCluster, terms: Terms = QUICK) -> WithoutKopf:
    settings = Settings(pod_name="pod-a", pod_ip="10.1.2.3", **PORTS)
    candidate = Candidate(cluster, NAMESPACE, LEASE, ME, terms)
    return WithoutKopf(settings, cluster, Metrics(), candidate)


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not reached():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.005)


def holder(cluster: FakeCluster) -> str:
    lease = cluster.objects.get(("leases", NAMESPACE, LEASE), {})
    return lease.get("spec", {}).get("holderIdentity", "")


async def test_one_that_stands_by_is_ready_and_touches_nothing():
    cluster = ClosableCluster()
    spec = {"holderIdentity": OTHER, "leaseDurationSeconds": 3600}
    await cluster.create("leases", NAMESPACE, {"metadata": {"name": LEASE}, "spec": spec})
    cluster.calls.clear()
    stop, standing_by = asyncio.Event(), operator(cluster)
    assert standing_by._unready() == ("waiting for the lease",)
    task = asyncio.create_task(standing_by.run(stop))
    await until(lambda: not standing_by._unready())
    await until(lambda: len(cluster.calls) > 2)
    stop.set()
    assert await task == 0
    assert set(cluster.calls) == {("get", "leases", LEASE)}
    assert holder(cluster) == OTHER
    assert cluster.closed


async def test_the_leader_says_where_it_is_and_gives_the_lease_back_last():
    cluster = ClosableCluster()
    stop, leading = asyncio.Event(), operator(cluster)
    task = asyncio.create_task(leading.run(stop))
    await until(lambda: leading._leads_since is not None and not leading._unready())
    assert holder(cluster) == ME
    (endpoint,) = cluster.objects["endpointslices", NAMESPACE, f"{SERVICE}-ipv4"]["endpoints"]
    assert endpoint["addresses"] == ["10.1.2.3"]
    stop.set()
    assert await task == 0
    assert holder(cluster) == ""
    assert cluster.calls[-1] == ("patch", "leases", LEASE)


async def test_a_lost_lease_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch):
    codes: list[int] = []

    def exit_(code: int) -> None:
        codes.append(code)
        raise asyncio.CancelledError  # The real one does not return.

    monkeypatch.setattr(process.os, "_exit", exit_)
    monkeypatch.setattr(process.logging, "shutdown", lambda: None)
    cluster = ClosableCluster()
    leading = operator(cluster)
    task = asyncio.create_task(leading.run(asyncio.Event()))
    await until(lambda: leading._leads_since is not None and not leading._unready())
    cluster.refuse["patch", "leases"] = ApiError(0, "Unreachable", "cut off")
    await until(lambda: codes)
    assert codes == [EXIT_LOST]
    await task


async def test_without_a_pod_it_asks_for_no_lease():
    cluster = ClosableCluster()
    settings = Settings(**PORTS)
    stop, alone = asyncio.Event(), WithoutKopf(settings, cluster, Metrics(), None)
    task = asyncio.create_task(alone.run(stop))
    await until(lambda: not alone._unready())
    stop.set()
    assert await task == 0
    kinds = {kind for _, kind, _ in cluster.calls}
    assert not kinds & {"leases", "endpointslices", "endpoints"}
