"""SIGKILL to the operator at ten points of a job's life: one set of pods, and the right end.

The job is held at each early point by means of the cluster (a quota, a node selector) and of this
machine (a cut connection, user code that waits for a file), so no kill depends on luck. Only the
rig shows the processes behind containers; with a KUBECONFIG of yours these tests are skipped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from containers import container, cut_off, empty_dir
from jobs import (
    KIND,
    Job,
    assert_succeeded,
    job,
    local_result,
    percent,
    wait_ended,
    wait_percent,
)
from kubectl import Kubectl, wait_until
from operators import Kill, kill_operator, on_rig, running_operator
from progress import say

WORKERS = 2
EPOCHS = 600
PORT = 7070
QUOTA = "held"
GATE = "shardwise.dev/test-gate"
CODE = """
import pathlib
import time

from shardwise.examples import digits


def task():
    while not pathlib.Path("/output/open").exists():
        time.sleep(0.05)
    return digits.task()
"""
NAME = "survivor"


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


@contextmanager
def pods_ever(namespace: Kubectl, folder: Path) -> Iterator[Callable[[], set[tuple[str, str]]]]:
    """Every pod (name, uid) that there is in the namespace meanwhile, however short its life."""
    file = folder / "pods-ever"
    template = '{.metadata.name}{" "}{.metadata.uid}{"\\n"}'
    command = namespace.command("get", "pods", "--watch", f"--output=jsonpath={template}")
    with file.open("w") as out:
        watch = subprocess.Popen(command, stdout=out, env=namespace.environment())
        try:

            def seen() -> set[tuple[str, str]]:
                assert watch.poll() is None, "the watch on the pods has ended"
                lines = file.read_text().splitlines()
                return {(name, uid) for name, _, uid in (line.partition(" ") for line in lines)}

            yield seen
        finally:
            watch.terminate()
            watch.wait(timeout=20)


def held_job(namespace: Kubectl) -> Job:
    """Digits, with code that waits for a file, on nodes that no pod may go to yet."""
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "held-code"},
            "data": {"held.py": CODE},
        }
    )
    manifest = job(
        NAME,
        workers=WORKERS,
        epochs=EPOCHS,
        entrypoint="held:task",
        codeFrom={"configMap": "held-code"},
    )
    manifest["spec"]["template"] = {"spec": {"nodeSelector": {GATE: namespace.namespace}}}
    return manifest


@pytest.mark.timeout(1800)
def test_killed_at_ten_points_there_is_one_set_of_pods_and_the_right_end(
    release: Kubectl,
    namespace: Kubectl,
    quota: Callable[[int], None],
    gate: Callable[[], None],
    tmp_path: Path,
) -> None:
    on_rig(release)
    kills: list[Kill] = []

    def now() -> Job:
        return namespace.get(KIND, NAME) or {}

    def kill(point: str) -> None:
        kills.append(kill_operator(release, point))
        last = kills[-1]
        say(f"kill {len(kills)}, {point}: process {last.container.pid}, {last.ready_after:.1f} s")

    def pods(count: int) -> list[dict[str, Any]]:
        return wait_until(
            f"{count} of {WORKERS} pods are made",
            lambda: found if len(found := namespace.pods(NAME)) == count else None,
            seconds=60,
        )

    manifest = held_job(namespace)
    quota(0)
    with pods_ever(namespace, tmp_path) as seen:
        running_operator(release)
        namespace.apply(manifest)
        kill("just applied")

        namespace.wait_for(
            "no pod may be made", KIND, NAME, lambda found: "QuotaExceeded" in reasons(found)
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
            wait_until(
                "all pods run", lambda: phases(namespace) == ["Running"] * WORKERS, seconds=60
            )
            containers = [container(pod) for pod in namespace.pods(NAME)]
            assert all(found and not found.connected(PORT) for found in containers)
            kill("pods run, none connected")

        wait_until(
            "all workers connect",
            lambda: all(found and found.connected(PORT) for found in containers),
            seconds=60,
            poll=0.05,
        )
        # What they wait for is in their own code: no group can stand.
        assert "progress" not in now()["status"]
        kill("connected, none has loaded its code")
        assert "progress" not in now()["status"]

        for pod in namespace.pods(NAME):
            (empty_dir(pod, "output") / "open").touch()
        namespace.wait_for("a generation is out", KIND, NAME, lambda found: generation(found) > 0)
        kill("the group forms")

        for percents, following in ((45, 80), (80, 100)):
            found = wait_percent(namespace, NAME, percents)
            assert percent(found) < following, "the job is too short for its kills"
            kill(f"{percent(found)} % done")
        wait_percent(namespace, NAME, 100)
        wait_ended(namespace, NAME)
        kill("ended, its pods still there")

        assert len(namespace.pods(NAME)) == WORKERS
        found = now()
        assert_succeeded(found)
        assert sorted(name for name, _ in seen()) == [f"{NAME}-{i}" for i in range(WORKERS)]
    assert len(kills) == 10
    assert len({kill.container.identity for kill in kills}) == 10

    plain = job(NAME, workers=WORKERS, epochs=EPOCHS)
    local = local_result(plain, tmp_path, workers=WORKERS)
    assert found["status"]["result"]["weightsSha256"] == local["weightsSha256"]
    say(f"ten kills, one set of pods, weights {local['weightsSha256'][:8]} as in local mode")


def reasons(found: Job) -> set[str]:
    conditions = found.get("status", {}).get("conditions", [])
    return {entry["reason"] for entry in conditions}


def generation(found: Job) -> int:
    return int(found.get("status", {}).get("workers", {}).get("generation") or 0)


def phases(namespace: Kubectl) -> list[str]:
    return [pod["status"].get("phase", "") for pod in namespace.pods(NAME)]
