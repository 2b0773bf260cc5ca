"""Workers, nodes and operators come and go while a job trains: the same bytes, no step lost.

Each job runs slowly until its last disturbance is over. What each recovery took is printed.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import slow
from containers import container
from jobs import (
    LOCAL_SECONDS,
    Job,
    assert_succeeded,
    condition,
    state,
    wait_ended,
    wait_job,
)
from kubectl import Kubectl, wait_until
from nodes import node_down, on_node, spare_node
from operators import on_rig, operator_away, running_operator
from progress import say
from releases import upgraded
from slow import (
    causes,
    first_process,
    generation,
    hurry,
    kill_trainer,
    step,
    tell,
    trains_on,
    worker,
)
from volumes import claim


@pytest.fixture(autouse=True)
def _rig_only(release: Kubectl) -> None:
    on_rig(release)


def ends(namespace: Kubectl, name: str, weights: Future[str], lost_steps: bool = False) -> Job:
    """The job hurries to its end, which is the undisturbed one."""
    hurry(namespace, name)
    found = wait_ended(namespace, name)
    tell(f"{name} ended", found)
    assert_succeeded(found)
    assert found["status"]["result"]["weightsSha256"] == weights.result(LOCAL_SECONDS)
    if not lost_steps:
        assert found["status"].get("lostSteps", 0) == 0
    return found


def pod_uids(namespace: Kubectl, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in namespace.pods(name)}


@pytest.mark.every_version
def test_workers_are_deleted_and_killed(namespace: Kubectl, undisturbed: Future[str]) -> None:
    slow.start(namespace, "hurt", workers={"min": 2})
    trains_on(namespace, "hurt", 4, {}, "all train")

    before = worker(namespace, "hurt", 1)
    kill_trainer(before)
    trains_on(namespace, "hurt", 4, {"Killed": 1, "Joined": 1}, "SIGKILL to a trainer")
    same = worker(namespace, "hurt", 1)
    assert same["metadata"]["uid"] == before["metadata"]["uid"], "it was begun anew in place"

    namespace.run("delete", "pod", "hurt-2", "--wait=false")
    trains_on(namespace, "hurt", 4, {"Preempted": 1, "Joined": 2}, "kubectl delete pod")

    first_process(worker(namespace, "hurt", 3)).kill()
    found = trains_on(namespace, "hurt", 4, {"Killed": 2, "Joined": 3}, "SIGKILL to a container")
    assert found["status"]["restarts"]["total"] == 1, "only the container's end costs one"

    found = ends(namespace, "hurt", undisturbed)
    assert causes(found) == {"Killed": 2, "Preempted": 1, "Joined": 3}
    assert found["status"]["recoveries"] == 3


def test_a_node_stops(release: Kubectl, namespace: Kubectl, undisturbed: Future[str]) -> None:
    slow.start(namespace, "dark", workers={"min": 1})
    trains_on(namespace, "dark", 4, {}, "all train")
    node = spare_node(release)
    lost = on_node(namespace, "dark", node)
    assert 0 < len(lost) < 4
    with node_down(release, node):
        cut = time.monotonic()
        trains_on(namespace, "dark", 4 - len(lost), {}, "the other node trains on alone")
        trains_on(namespace, "dark", 4, {}, "the other node has replacements")
        say(f"full strength {time.monotonic() - cut:.1f} s after the cut")
        stuck = on_node(namespace, "dark", node)
        assert sorted(stuck) == sorted(lost), "pods of a dead node stay, and hold nothing up"
    wait_until(
        "the pods of the dead node are gone",
        lambda: not on_node(namespace, "dark", node),
    )
    found = ends(namespace, "dark", undisturbed)
    assert set(causes(found)) <= {"Killed", "Unreachable", "Broken", "Joined"}
    assert "restarts" not in found["status"] or not found["status"]["restarts"]["total"]


def test_a_node_is_drained_and_the_job_is_scaled(
    release: Kubectl, namespace: Kubectl, undisturbed: Future[str]
) -> None:
    slow.start(namespace, "moved", workers={"min": 1})
    trains_on(namespace, "moved", 4, {}, "all train")
    node = spare_node(release)
    there = on_node(namespace, "moved", node)
    assert there
    try:
        before = time.monotonic()
        namespace.run(
            *("drain", node, "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=180s"),
            seconds=200,
        )
        say(f"drained in {time.monotonic() - before:.1f} s")
        trains_on(namespace, "moved", 4, {"Preempted": 1}, "kubectl drain")
        assert not on_node(namespace, "moved", node)
    finally:
        namespace.run("uncordon", node)

    for replicas in (2, 4):
        before = time.monotonic()
        namespace.run("scale", "optjob/moved", f"--replicas={replicas}")
        trains_on(namespace, "moved", replicas, {}, f"kubectl scale to {replicas}")
        say(f"scaled to {replicas} in {time.monotonic() - before:.1f} s")
    found = ends(namespace, "moved", undisturbed)
    assert set(causes(found)) == {"Preempted", "Resized", "Joined"}
    assert "restarts" not in found["status"] or not found["status"]["restarts"]["total"]


def test_suspended_resumed_and_all_pods_deleted(
    namespace: Kubectl, undisturbed: Future[str], tmp_path: Path
) -> None:
    volume = {"persistentVolumeClaim": {"claimName": "checkpoints"}}
    with claim(namespace, "checkpoints", tmp_path / "checkpoints"):
        slow.start(
            namespace,
            "paused",
            workers={"min": 1},
            checkpoint={"everySteps": 50, "volume": volume},
        )
        trains_on(namespace, "paused", 4, {}, "all train")
        before = time.monotonic()
        namespace.run("patch", "optjob/paused", "--type=merge", '--patch={"spec":{"suspend":true}}')
        found = wait_job(namespace, "paused", "suspended", lambda now: state(now) == "Suspended")
        say(f"suspended in {time.monotonic() - before:.1f} s at step {step(found)}")
        assert condition(found, "Suspended")["status"] == "True"
        wait_until("its pods are gone", lambda: not namespace.pods("paused"))
        kept = found["status"]["checkpoint"]["step"]
        assert kept >= step(found), "what was done is in the checkpoint"

        before = time.monotonic()
        change = '{"spec":{"suspend":false,"workers":{"replicas":2,"max":4}}}'
        namespace.run("patch", "optjob/paused", "--type=merge", f"--patch={change}")
        found = trains_on(namespace, "paused", 2, {}, "resumed on 2")
        say(f"resumed in {time.monotonic() - before:.1f} s from step {kept}")
        assert step(found) > kept

        before = time.monotonic()
        old = pod_uids(namespace, "paused")
        namespace.run("delete", "pods", "--selector=shardwise.dev/job-name=paused", "--wait=false")
        # Until they leave, at a step boundary, it is they who train on.
        wait_until("the old pods are gone", lambda: not old & pod_uids(namespace, "paused"))
        found = trains_on(namespace, "paused", 2, {}, "all pods deleted", above=generation(found))
        say(f"back {time.monotonic() - before:.1f} s after all pods were deleted")

        running = [container(pod) for pod in namespace.pods("paused")]
        assert len(running) == 2
        for process in running:
            assert process is not None
            process.kill()
        before = time.monotonic()
        trains_on(namespace, "paused", 2, {}, "all containers killed", above=generation(found))
        say(f"back {time.monotonic() - before:.1f} s after all containers were killed")
        # Nobody was left who could have saved a step: only those since the checkpoint are lost.
        found = ends(namespace, "paused", undisturbed, lost_steps=True)
        assert found["status"].get("lostSteps", 0) <= 2 * 50


def test_the_operator_goes_and_comes(
    release: Kubectl, namespace: Kubectl, undisturbed: Future[str]
) -> None:
    slow.start(namespace, "alone", workers={"min": 1})
    found = trains_on(namespace, "alone", 4, {}, "all train")
    number = generation(found)
    pods = pod_uids(namespace, "alone")

    name, _ = running_operator(release)
    release.run("delete", "pod", name)
    running_operator(release)
    found = trains_on(namespace, "alone", 4, {}, "operator deleted")

    with upgraded(release, "operator.logLevel=DEBUG"):
        found = trains_on(namespace, "alone", 4, {}, "helm upgrade")
    found = trains_on(namespace, "alone", 4, {}, "helm rollback")
    assert generation(found) == number, "the group never noticed"
    assert pod_uids(namespace, "alone") == pods

    with operator_away(release):
        kill_trainer(worker(namespace, "alone", 2))
    trains_on(namespace, "alone", 4, {}, "a trainer killed while the operator was away")
    found = ends(namespace, "alone", undisturbed)
    assert set(causes(found)) <= {"Killed", "Broken", "Unreachable", "Joined"}
    assert sum(causes(found).values()) >= 1
