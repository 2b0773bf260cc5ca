"""`helm test`: its job is a valid one, and is deleted however it ends."""

from __future__ import annotations

from typing import Any

import pytest
from fake_cluster import FakeCluster

from shardwise.api.validation import validate
from shardwise_operator import selftest
from shardwise_operator.port import ApiError


class Cluster(FakeCluster):
    """The operator of this cluster brings each job to this state at once."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.state = state

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        found = await super().get(kind, namespace, name)
        condition = {"type": self.state, "status": "True", "reason": "R", "message": "why"}
        return {**found, "status": {"state": self.state, "conditions": [condition]}}


def test_its_job_is_valid() -> None:
    assert validate(selftest.job("x")).spec.workers.replicas == 2


@pytest.mark.parametrize(
    ("state", "good"),
    [("Succeeded", True), ("Failed", False), ("Invalid", False), ("Running", False)],
)
async def test_it_says_how_the_job_ended_and_deletes_it(state: str, good: bool) -> None:
    cluster, said = Cluster(state), []
    assert await selftest.check(cluster, "ns", "x", said.append, seconds=0.0) == good
    assert said[0] == f"{state}\n  {state}=True R: why"
    assert not cluster.objects


async def test_one_that_is_in_the_way_is_left_alone() -> None:
    cluster = Cluster("Succeeded")
    await cluster.create("optimizationjobs", "ns", selftest.job("x"))
    with pytest.raises(ApiError, match="AlreadyExists"):
        await selftest.check(cluster, "ns", "x", print)
    assert len(cluster.objects) == 1
