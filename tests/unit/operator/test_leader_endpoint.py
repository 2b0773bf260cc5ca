"""Where workers find the leader: its address is written, corrected, and made where it lacks."""

from __future__ import annotations

import asyncio

import pytest
from fake_cluster import FakeCluster
from lease_world import virtually

from shardwise_operator.endpoint import AGAIN_SECONDS, RETRY_SECONDS, announce, endpoint_slice
from shardwise_operator.port import ApiError

KEY = ("endpointslices", "system", "shardwise-coordinator-ipv4")
OLD_KEY = ("endpoints", "system", "shardwise-coordinator")


def body(address: str = "10.1.2.3"):
    return endpoint_slice("system", "shardwise-coordinator", "pod-a", address, 7070)


def addresses(cluster: FakeCluster) -> list[str]:
    return [ip for endpoint in cluster.objects[KEY]["endpoints"] for ip in endpoint["addresses"]]


def test_it_is_made_and_then_kept():
    async def main(loop):
        cluster, times = FakeCluster(), []
        task = loop.create_task(announce(cluster, body(), lambda: times.append(loop.time())))
        await asyncio.sleep(1)
        assert addresses(cluster) == ["10.1.2.3"]
        # A write of the leader before this one comes late.
        await cluster.patch(*KEY, {"endpoints": body("10.9.9.9")["endpoints"]})
        await asyncio.sleep(AGAIN_SECONDS)
        assert addresses(cluster) == ["10.1.2.3"]
        del cluster.objects[KEY]
        await asyncio.sleep(AGAIN_SECONDS)
        assert addresses(cluster) == ["10.1.2.3"]
        assert len(times) == 3
        assert not task.done()

    virtually(main)


def test_the_address_of_the_leader_before_goes():
    async def main(loop):
        cluster = FakeCluster()
        await cluster.create("endpointslices", "system", body("10.9.9.9"))
        loop.create_task(announce(cluster, body(), lambda: None))
        await asyncio.sleep(1)
        assert addresses(cluster) == ["10.1.2.3"]

    virtually(main)


def test_a_refusal_is_tried_again_and_nothing_is_claimed():
    async def main(loop):
        cluster, times = FakeCluster(), []
        for kind in ("endpointslices", "endpoints"):
            cluster.refuse["patch", kind] = ApiError(403, "Forbidden", "not yet bound")
        loop.create_task(announce(cluster, body(), lambda: times.append(loop.time())))
        await asyncio.sleep(RETRY_SECONDS * 2)
        assert not times
        cluster.refuse.clear()
        await asyncio.sleep(RETRY_SECONDS)
        assert len(times) == 1

    virtually(main)


@pytest.mark.parametrize("status", [403, 404])
def test_a_server_without_endpoint_slices_gets_endpoints(status):
    """It answers 403 to one who has no right to a kind that it does not know."""

    async def main(loop):
        cluster, times = FakeCluster(), []
        for verb in ("patch", "create"):
            cluster.refuse[verb, "endpointslices"] = ApiError(status, "No", "no such kind")
        loop.create_task(announce(cluster, body(), lambda: times.append(loop.time())))
        await asyncio.sleep(1)
        (subset,) = cluster.objects[OLD_KEY]["subsets"]
        assert [address["ip"] for address in subset["addresses"]] == ["10.1.2.3"]
        assert len(times) == 1

    virtually(main)


def test_where_neither_may_be_written_it_is_the_newer_kind_that_is_told_of(caplog):
    async def main(loop):
        cluster, times = FakeCluster(), []
        for kind in ("endpointslices", "endpoints"):
            cluster.refuse["patch", kind] = ApiError(403, "Forbidden", f"no right to {kind}")
        loop.create_task(announce(cluster, body(), lambda: times.append(loop.time())))
        await asyncio.sleep(1)
        assert not times

    virtually(main)
    assert "no right to endpointslices" in caplog.text


def test_an_ipv6_address_has_a_slice_of_its_own():
    six = body("fd00::1")
    assert six["metadata"]["name"] == "shardwise-coordinator-ipv6"
    assert six["addressType"] == "IPv6"
