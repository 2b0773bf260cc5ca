"""Two replicas: the one that acts dies, is stopped for a while, is replaced; training goes on.

The leader is lost in three ways in one job's life. No step is lost, no worker is started twice,
and the weights are those of local mode.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import slow
from containers import container
from jobs import LOCAL_SECONDS, assert_succeeded, wait_ended
from kubectl import Kubectl, wait_until
from operators import DEPLOYMENT, OPERATOR, is_ready, on_rig
from progress import say
from releases import upgraded

from shardwise_operator.leader import EXIT_LOST

WORKERS = 2
NAME = "carried-on"
SERVICE = "shardwise-coordinator"
LEASE = "shardwise"


@pytest.fixture
def replicas(release: Kubectl) -> Iterator[Kubectl]:
    with upgraded(release, "operator.replicas=2"):
        yield release


def leader(release: Kubectl) -> dict[str, Any] | None:
    """The pod that holds the lease and has written its address for the workers."""
    holder = (release.get("lease", LEASE) or {}).get("spec", {}).get("holderIdentity", "")
    name, _, uid = holder.partition("_")
    pod = release.get("pod", name) if name else None
    if pod is None or pod["metadata"]["uid"] != uid or not is_ready(pod):
        return None
    # Mirrored from Endpoints on servers before v1.21.
    slices = release.list("endpointslices", f"kubernetes.io/service-name={SERVICE}")
    endpoints = [endpoint for each in slices for endpoint in each.get("endpoints") or ()]
    addresses = [address for endpoint in endpoints for address in endpoint["addresses"]]
    return pod if addresses == [pod["status"]["podIP"]] else None


def two_stand(release: Kubectl) -> dict[str, Any] | None:
    """The leader, where another stands by."""
    pods = release.list("pods", OPERATOR)
    both = len(pods) == 2 and all(map(is_ready, pods))
    return leader(release) if both else None


def another_leads(release: Kubectl, old: dict[str, Any], what: str) -> dict[str, Any]:
    """The leader that follows this one, once workers can reach it."""
    before = time.monotonic()

    def probe() -> dict[str, Any] | None:
        new = leader(release)
        return new if new and new["metadata"]["uid"] != old["metadata"]["uid"] else None

    new = wait_until(f"another leads after: {what}", probe)
    say(f"{what}: another leads after {time.monotonic() - before:.1f} s")
    return new


@pytest.mark.timeout(1800)
def test_the_leader_is_lost_three_times_and_no_step_with_it(
    replicas: Kubectl, namespace: Kubectl, undisturbed: Future[str]
) -> None:
    on_rig(replicas)
    slow.start(namespace, NAME, workers={"replicas": WORKERS})
    slow.trains_on(namespace, NAME, WORKERS, {}, "all train")
    workers = {pod["metadata"]["uid"] for pod in namespace.pods(NAME)}

    first = wait_until("one leads, one stands by", lambda: two_stand(replicas))
    standby = {pod["metadata"]["uid"] for pod in replicas.list("pods", OPERATOR)}
    victim = container(first)
    assert victim is not None
    victim.kill()
    # Its container would be started again in the same pod, which would lead again at once.
    replicas.run("delete", "pod", first["metadata"]["name"], "--grace-period=0", "--force")
    second = another_leads(replicas, first, "SIGKILL")
    assert second["metadata"]["uid"] in standby

    slow.gets_on(namespace, NAME)
    second = wait_until("one leads, one stands by", lambda: two_stand(replicas))
    stopped = container(second)
    assert stopped is not None
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        third = another_leads(replicas, second, "SIGSTOP")
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    # It wakes to a lease that is another's, and ends before it does anything.
    wait_until("the one that was stopped has ended", lambda: not stopped.alive())
    woken = replicas.wait_for(
        "its container is started again",
        "pod",
        second["metadata"]["name"],
        lambda pod: pod["status"]["containerStatuses"][0]["restartCount"] == 1,
    )
    last = woken["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert last["exitCode"] == EXIT_LOST
    third_again = leader(replicas)
    assert third_again and third_again["metadata"]["uid"] == third["metadata"]["uid"]

    slow.gets_on(namespace, NAME)
    replicas.run("rollout", "restart", f"deployment/{DEPLOYMENT}")
    another_leads(replicas, third, "rollout")
    replicas.run("rollout", "status", f"deployment/{DEPLOYMENT}", "--timeout=240s", seconds=250)

    slow.gets_on(namespace, NAME)
    slow.hurry(namespace, NAME)
    found = wait_ended(namespace, NAME)
    assert_succeeded(found)
    assert found["status"].get("recoveries", 0) == 0
    pods = namespace.pods(NAME)
    assert {pod["metadata"]["uid"] for pod in pods} == workers
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods] == [0] * WORKERS
    assert found["status"]["result"]["weightsSha256"] == undisturbed.result(LOCAL_SECONDS)
