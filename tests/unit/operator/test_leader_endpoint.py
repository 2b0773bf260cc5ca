"""Where workers find the leader: its address is written, corrected, and made where it lacks."""

from __future__ import annotations

import asyncio

from fake_cluster import FakeCluster
from lease_world import virtually

from shardwise_operator.endpoint import AGAIN_SECONDS, RETRY_SECONDS, announce, endpoints
from shardwise_operator.port import ApiError

KEY = ("endpoints", "system", "shardwise-coordinator")


def body(address: str = "10.1.2.3"):
    return endpoints("system", "shardwise-coordinator", "pod-a", address, 7070)


def addresses(cluster: FakeCluster) -> list[str]:
    return [a["ip"] for s in cluster.objects[KEY]["subsets"] for a in s["addresses"]]


def test_it_is_made_and_then_kept():
    async def main(loop):
        cluster, times = FakeCluster(), []
        task = loop.create_task(announce(cluster, body(), lambda: times.append(loop.time())))
        await asyncio.sleep(1)
        assert addresses(cluster) == ["10.1.2.3"]
        # A write of the leader before this one comes late.
        await cluster.patch(*KEY, {"subsets": body("10.9.9.9")["subsets"]})
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
        await cluster.create("endpoints", "system", body("10.9.9.9"))
        loop.create_task(announce(cluster, body(), lambda: None))
        await asyncio.sleep(1)
        assert addresses(cluster) == ["10.1.2.3"]

    virtually(main)


def test_a_refusal_is_tried_again_and_nothing_is_claimed():
    async def main(loop):
        cluster, times = FakeCluster(), []
        cluster.refuse["patch", "endpoints"] = ApiError(403, "Forbidden", "not yet bound")
        loop.create_task(announce(cluster, body(), lambda: times.append(loop.time())))
        await asyncio.sleep(RETRY_SECONDS * 2)
        assert not times
        cluster.refuse.clear()
        await asyncio.sleep(RETRY_SECONDS)
        assert len(times) == 1

    virtually(main)
