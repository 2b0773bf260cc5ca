"""The operator is killed, or gone: jobs go on, end rightly, and can be deleted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobs import KIND, Job, assert_succeeded, job, local_result, state, wait_ended
from kubectl import Kubectl, wait_until

OPERATOR = "app.kubernetes.io/component=operator"
RUN = Path("/run/kube-lab")
WORKERS = 2


def kill_operator(release: Kubectl) -> int:
    """SIGKILL, then a new pod: a container that is restarted in place would wait ever longer.

    Gives how many running containers the signal reached: none where the last kill's new pod has
    not started its container yet.
    """
    killed = 0
    for pod in release.list("pods", OPERATOR):
        for status in pod["status"].get("containerStatuses", []):
            socket = RUN / pod["spec"].get("nodeName", "") / "containerd.sock"
            identity = status.get("containerID", "").removeprefix("containerd://")
            if socket.exists() and identity:
                done = subprocess.run(
                    [
                        *("ctr", "--address", str(socket), "--namespace", "k8s.io"),
                        *("tasks", "kill", "--signal", "SIGKILL", identity),
                    ],
                    check=False,  # It may be dead already.
                    capture_output=True,
                    timeout=30,
                )
                killed += done.returncode == 0
        release.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    return killed


def operator_ready(release: Kubectl) -> bool:
    found = release.get("deployment", "shardwise") or {}
    return bool(found.get("status", {}).get("readyReplicas"))


@contextmanager
def operator_away(release: Kubectl) -> Iterator[None]:
    release.run("scale", "deployment", "shardwise", "--replicas=0")
    wait_until("the operator is gone", lambda: not release.list("pods", OPERATOR), seconds=60)
    try:
        yield
    finally:
        release.run("scale", "deployment", "shardwise", "--replicas=1")
        wait_until("the operator is back", lambda: operator_ready(release), seconds=90)


def test_a_job_is_deleted_while_the_operator_is_away(release: Kubectl, namespace: Kubectl) -> None:
    namespace.apply(job("endless", epochs=100_000))
    namespace.wait_for("it trains", KIND, "endless", lambda found: state(found) == "Running")
    with operator_away(release):
        namespace.run("delete", "optjob", "endless", "--timeout=30s")
        namespace.gone(("pods", "services"), "shardwise.dev/job-name=endless")


def test_a_job_that_ends_while_the_operator_is_away_is_told_of_later(
    release: Kubectl, namespace: Kubectl
) -> None:
    namespace.apply(job("unseen", epochs=100))
    # A first report: the group stands, and needs the coordinator no more.
    namespace.wait_for("steps are done", KIND, "unseen", lambda found: percent(found) > 0)
    with operator_away(release):
        wait_until(
            "its workers end",
            lambda: phases(namespace, "unseen") == ["Succeeded"] * WORKERS,
            seconds=150,  # They wait a minute for someone to tell their result to.
        )
    assert_succeeded(wait_ended(namespace, "unseen"))


def percent(found: Job) -> int:
    return int(found.get("status", {}).get("progress", {}).get("percent", 0))


def phases(namespace: Kubectl, name: str) -> list[str]:
    return [pod["status"].get("phase", "") for pod in namespace.pods(name)]


@pytest.mark.timeout(900)
def test_killed_again_and_again_there_is_one_set_of_pods_and_the_right_end(
    release: Kubectl, namespace: Kubectl, tmp_path: Path
) -> None:
    """Ten times the operator's pod is killed; not each time does a container run in it already.

    Measured: six of the ten SIGKILLs reached one (as the job was applied, at 0, 10, 47 and 84 % of
    the training, after the end). The others only delete a pod that is still starting.
    """
    name = "survivor"
    manifest = job(name, workers=WORKERS, epochs=250)

    def now() -> Job:
        return namespace.get(KIND, name) or {}

    def over(least: int) -> Callable[[], bool]:
        return lambda: percent(now()) >= least

    points: dict[str, Callable[[], bool]] = {
        "as it is applied": lambda: True,
        "a pod is made": lambda: len(phases(namespace, name)) > 0,
        "all pods are made": lambda: len(phases(namespace, name)) == WORKERS,
        "a pod runs": lambda: "Running" in phases(namespace, name),
        "all pods run": lambda: phases(namespace, name) == ["Running"] * WORKERS,
        "it trains": lambda: state(now()) == "Running",
        "a tenth is done": over(10),
        "a third is done": over(33),
        "two thirds are done": over(66),
        "it has ended": lambda: state(now()) == "Succeeded",
    }
    uids = set()
    reached_by_signal = 0
    namespace.apply(manifest)
    for what, reached in points.items():
        wait_until(what, reached, seconds=150)
        uids |= {pod["metadata"]["uid"] for pod in namespace.pods(name)}
        reached_by_signal += kill_operator(release)
    assert reached_by_signal >= 3, "SIGKILL reaches hardly any running operator: no kill was tested"
    wait_until("the operator is back", lambda: operator_ready(release), seconds=90)

    found = wait_ended(namespace, name)
    assert_succeeded(found)
    uids |= {pod["metadata"]["uid"] for pod in namespace.pods(name)}
    assert len(uids) == WORKERS
    local = local_result(manifest, tmp_path, workers=WORKERS)
    assert found["status"]["result"]["weightsSha256"] == local["weightsSha256"]
