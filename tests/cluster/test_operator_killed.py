"""SIGKILL to the operator at ten points of a job's life: one set of pods, and the right end.

The job is held at each early point by means of the cluster (a quota, a node selector) and of this
machine (a cut connection, user code that waits for a file), so no kill depends on luck. Only the
rig shows the processes behind containers; with a KUBECONFIG of yours these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import slow
from containers import container, cut_off
from jobs import KIND, LOCAL_SECONDS, Job, assert_succeeded, wait_ended, wait_job
from kubectl import Kubectl, wait_until, watched
from operators import Kill, kill_operator, on_rig, running_operator
from progress import say
from releases import upgraded
from slow import generation, step

WORKERS = 2
PORT = 7070
QUOTA = "held"
LEASE = [
    f"operator.lease.{key}Seconds={n}" for key, n in (("duration", 6), ("renew", 4), ("retry", 1))
]
GATE = "shardwise.dev/test-gate"
NAME = "survivor"
POD = '{.metadata.name}{" "}{.metadata.uid}'


@pytest.fixture
def quick(release: Kubectl) -> Iterator[Kubectl]:
    """The pod that follows a killed operator's waits for the lease to run out: a short one here.

    One so short may also run out by itself, on a machine that hangs for a moment: no harm here."""
    with upgraded(release, *LEASE):
        yield release


@pytest.fixture
def quota(namespace: Kubectl) -> Callable[[int], None]:
    """Sets how many pods the test's namespace may hold."""

    def set_pods(count: int) -> None:
        hard = {"pods": str(count)}
        namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": QUOTA},
                "spec": {"hard": hard},
            }
        )
        # Until the controller has taken it in, admission goes by the old one.
        namespace.wait_for(
            "the quota holds",
            "resourcequota",
            QUOTA,
            lambda found: found.get("status", {}).get("hard") == hard,
        )

    return set_pods


@pytest.fixture
def gate(namespace: Kubectl) -> Iterator[Callable[[], None]]:
    """Lets the job's pods on to the nodes, which their node selector keeps them from."""
    yield lambda: _label_nodes(namespace, f"{GATE}={namespace.namespace}")
    _label_nodes(namespace, f"{GATE}-")


def _label_nodes(namespace: Kubectl, change: str) -> None:
    namespace.run("label", "nodes", "--all", "--overwrite", change)


@pytest.mark.timeout(1800)
def test_killed_at_ten_points_there_is_one_set_of_pods_and_the_right_end(
    quick: Kubectl,
    namespace: Kubectl,
    quota: Callable[[int], None],
    gate: Callable[[], None],
    undisturbed: Future[str],
) -> None:
    on_rig(quick)
    kills: list[Kill] = []

    def now() -> Job:
        return namespace.get(KIND, NAME) or {}

    def kill(point: str) -> None:
        kills.append(kill_operator(quick, point))
        last = kills[-1]
        say(f"kill {len(kills)}, {point}: process {last.container.pid}, {last.ready_after:.1f} s")

    def pods(count: int) -> list[dict[str, Any]]:
        return wait_until(
            f"{count} of {WORKERS} pods are made",
            lambda: found if len(found := namespace.pods(NAME)) == count else None,
        )

    quota(0)
    with watched(namespace, POD, "pods") as seen:
        running_operator(quick)
        # On nodes that no pod may go to yet, with code that waits for a file.
        slow.start(
            namespace,
            NAME,
            held=True,
            workers={"replicas": WORKERS},
            template={"spec": {"nodeSelector": {GATE: namespace.namespace}}},
        )
        kill("just applied")

        wait_job(
            namespace, NAME, "no pod may be made", lambda found: "QuotaExceeded" in reasons(found)
        )
        assert namespace.list("services", f"shardwise.dev/job-name={NAME}")
        assert not namespace.pods(NAME)
        kill("service made, no pod")

        quota(1)
        pods(1)
        kill("first pod made")

        quota(WORKERS)
        made = pods(WORKERS)
        assert not any(pod["spec"].get("nodeName") for pod in made)
        kill("all pods made, none runs")

        with cut_off(PORT):
            gate()
            wait_until("all pods run", lambda: phases(namespace) == ["Running"] * WORKERS)
            containers = [container(pod) for pod in namespace.pods(NAME)]
            assert all(found and not found.connected(PORT) for found in containers)
            kill("pods run, none connected")

        wait_until(
            "all workers connect",
            lambda: all(found and found.connected(PORT) for found in containers),
            poll=0.05,
        )
        # What they wait for is in their own code: no group can stand.
        assert "progress" not in now()["status"]
        kill("connected, none has loaded its code")
        assert "progress" not in now()["status"]

        slow.let_in(namespace, NAME)
        wait_job(namespace, NAME, "a generation is out", lambda found: generation(found) > 0)
        kill("the group forms")

        for _ in range(2):
            kill(f"step {step(slow.gets_on(namespace, NAME))} done")
        slow.gets_on(namespace, NAME)
        slow.hurry(namespace, NAME)
        wait_ended(namespace, NAME)
        kill("ended, its pods still there")

        assert len(namespace.pods(NAME)) == WORKERS
        found = now()
        assert_succeeded(found)
        pods_ever = sorted(line.split()[0] for line in set(seen()))
        assert pods_ever == [f"{NAME}-{i}" for i in range(WORKERS)]
    assert len(kills) == 10
    assert len({kill.container.identity for kill in kills}) == 10

    weights = undisturbed.result(LOCAL_SECONDS)
    assert found["status"]["result"]["weightsSha256"] == weights
    say(f"ten kills, one set of pods, weights {weights[:8]} as in local mode")


def reasons(found: Job) -> set[str]:
    conditions = found.get("status", {}).get("conditions", [])
    return {entry["reason"] for entry in conditions}


def phases(namespace: Kubectl) -> list[str]:
    return [pod["status"].get("phase", "") for pod in namespace.pods(NAME)]
