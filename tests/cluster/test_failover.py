"""Two replicas: the one that acts dies, is stopped for a while, is replaced; training goes on.

The leader is lost in three ways in one job's life. No step is lost, no worker is started twice,
and the weights are those of local mode.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import container
from jobs import assert_succeeded, job, local_result, wait_ended, wait_percent
from kubectl import Kubectl, wait_until
from operators import DEPLOYMENT, OPERATOR, is_ready, on_rig
from progress import say
from releases import upgraded

from shardwise_operator.leader import EXIT_LOST

WORKERS = 2
EPOCHS = 400
NAME = "carried-on"
SERVICE = "shardwise-coordinator"
LEASE = "shardwise"
TAKEOVER_SECONDS = 90


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
    subsets = (release.get("endpoints", SERVICE) or {}).get("subsets", [])
    addresses = [entry["ip"] for subset in subsets for entry in subset.get("addresses", [])]
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

    new = wait_until(f"another leads after: {what}", probe, seconds=TAKEOVER_SECONDS)
    say(f"{what}: another leads after {time.monotonic() - before:.1f} s")
    return new


@pytest.mark.timeout(1800)
def test_the_leader_is_lost_three_times_and_no_step_with_it(
    replicas: Kubectl, namespace: Kubectl, tmp_path: Path
) -> None:
    on_rig(replicas)
    manifest = job(NAME, workers=WORKERS, epochs=EPOCHS)
    namespace.apply(manifest)
    wait_percent(namespace, NAME, 5)
    workers = {pod["metadata"]["uid"] for pod in namespace.pods(NAME)}

    first = wait_until("one leads, one stands by", lambda: two_stand(replicas), seconds=60)
    standby = {pod["metadata"]["uid"] for pod in replicas.list("pods", OPERATOR)}
    victim = container(first)
    assert victim is not None
    victim.kill()
    # Its container would be started again in the same pod, which would lead again at once.
    replicas.run("delete", "pod", first["metadata"]["name"], "--grace-period=0", "--force")
    second = another_leads(replicas, first, "SIGKILL")
    assert second["metadata"]["uid"] in standby

    wait_percent(namespace, NAME, 35)
    second = wait_until("one leads, one stands by", lambda: two_stand(replicas), seconds=60)
    stopped = container(second)
    assert stopped is not None
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        third = another_leads(replicas, second, "SIGSTOP")
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    # It wakes to a lease that is another's, and ends before it does anything.
    wait_until("the one that was stopped has ended", lambda: not stopped.alive(), seconds=30)
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

    wait_percent(namespace, NAME, 65)
    replicas.run("rollout", "restart", f"deployment/{DEPLOYMENT}")
    another_leads(replicas, third, "rollout")
    replicas.run("rollout", "status", f"deployment/{DEPLOYMENT}", "--timeout=120s", seconds=130)

    wait_percent(namespace, NAME, 100)
    found = wait_ended(namespace, NAME)
    assert_succeeded(found)
    assert found["status"]["result"]["recoveries"] == 0
    pods = namespace.pods(NAME)
    assert {pod["metadata"]["uid"] for pod in pods} == workers
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods] == [0] * WORKERS
    local = local_result(manifest, tmp_path, workers=WORKERS)
    assert found["status"]["result"]["weightsSha256"] == local["weightsSha256"]
