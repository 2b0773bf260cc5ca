"""A worker that fails or is lost: what it is told as, who is replaced, what ends the job."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from operator_world import World, told

from shardwise_operator.actions import DeletePod


@pytest.mark.parametrize(
    ("code", "changes", "reason", "words", "counts"),
    [
        (1, {}, "WorkerLost", "exit code 1", 1),
        (64, {}, "ContainerConfigError", "environment", 1),
        (137, {"exit_reason": "OOMKilled"}, "OutOfMemory", "limits.memory", 1),
        (137, {"termination": told("failed", reason="OOMKilled")}, "OutOfMemory", "memory", 1),
        (137, {}, "WorkerLost", "SIGKILL", 1),
        (143, {}, "WorkerLost", "SIGTERM", 1),
        (0, {}, "OutputFailed", "no worker left a result", 1),
        (137, {"pod_reason": "Evicted", "pod_message": "disk"}, "Evicted", "disk", 0),
        (137, {"pod_reason": "Shutdown"}, "Preempted", "Shutdown", 0),
        (143, {"disrupted": "PreemptionByScheduler"}, "Preempted", "PreemptionByScheduler", 0),
        (None, {"pod_reason": "OutOfcpu", "turned_away": True}, "RejectedByNode", "OutOfcpu", 0),
        (None, {"pod_reason": "NodeLost", "node_lost": True}, "NodeLost", "does not answer", 0),
    ],
)
def test_a_failed_worker_is_explained_and_replaced(code, changes, reason, words, counts):
    world = World()
    world.train()
    world.end_pod(2, code, **changes)
    world.settle()
    failure = world.status["lastFailure"]
    assert failure["reason"] == reason
    assert words in failure["message"]
    assert (failure["pod"], failure["rank"], failure["node"]) == ("digits-2", 2, "node0")
    assert failure.get("exitCode") == code
    world.pass_time(5)
    world.settle()
    assert world.status["state"] == "Running"
    assert world.created == [0, 1, 2, 3, 2]
    assert (world.status.get("restarts") or {}).get("total", 0) == counts
    assert world.condition("Degraded")["reason"] == "FewerWorkers"
    assert world.status["lastFailure"] == failure


@pytest.mark.parametrize(
    ("code", "changes", "reason", "words"),
    [
        (70, {}, "UserCodeFailed", "raised"),
        (73, {}, "OutputFailed", "spec.output.volume"),
        (
            70,
            {
                "termination": told(
                    "failed", reason="UserCodeFailed", message="KeyError: 'x'", detail="at x"
                )
            },
            "UserCodeFailed",
            "KeyError: 'x'",
        ),
        (
            70,
            {"termination": told("failed", reason="NotFinite", message="the loss is nan")},
            "NotFinite",
            "the loss is nan",
        ),
        (
            73,
            {"termination": told("failed", reason="CheckpointFailed", message="cannot read /x")},
            "CheckpointFailed",
            "cannot read /x",
        ),
    ],
)
def test_what_no_other_worker_would_do_better_fails_the_job_at_once(code, changes, reason, words):
    world = World()
    world.train()
    world.end_pod(2, code, **changes)
    world.settle()
    assert world.status["state"] == "Failed"
    assert world.status["reason"] == reason
    assert words in world.status["lastFailure"]["message"]
    assert set(world.pods) == {"digits-2"}  # Those that ran are removed, the culprit stays.
    assert world.condition("Failed")["status"] == "True"


def test_a_log_tail_comes_from_a_worker_that_died_without_a_word():
    world = World()
    world.train()
    world.end_pod(1, 1, termination="Traceback\nSegfault")
    world.settle()
    assert world.status["lastFailure"]["logTail"] == "Traceback\nSegfault"


def test_the_worker_whose_code_raised_is_named_not_one_that_was_told_of_it():
    world = World()
    world.train()
    secondhand = told("failed", reason="UserCodeFailed", message="the task has failed: x")
    world.end_pod(0, 70, termination=secondhand)
    world.settle()
    assert world.status["state"] == "Running"
    firsthand = told("failed", reason="UserCodeFailed", message="x", detail="Traceback: x")
    world.end_pod(2, 70, termination=firsthand)
    world.settle()
    assert world.status["lastFailure"]["pod"] == "digits-2"
    assert world.status["lastFailure"]["logTail"] == "Traceback: x"


def test_a_worker_that_was_ended_for_anothers_loss_is_not_named_for_it():
    world = World()
    world.train()
    stopped = told("failed", reason="NotFinite", message="the loss of step 3 is nan")
    world.end_pod(0, 71, termination=stopped)
    world.settle()
    assert world.status["state"] == "Running"
    world.end_pod(2, 70, termination=stopped)
    world.settle()
    assert world.status["lastFailure"]["pod"] == "digits-2"


def test_what_the_coordinator_gave_up_ends_the_job_when_no_pod_tells():
    world = World()
    world.train()
    world.fail_task("WorkerLost", "digits-3")
    assert world.settle().requeue_after == timedelta(seconds=10)
    world.pass_time(10)
    world.settle()
    assert world.status["state"] == "Failed"
    assert world.status["lastFailure"]["pod"] == "digits-3"
    assert not world.pods


def test_a_pod_that_vanishes_is_replaced_at_once_and_costs_nothing():
    world = World()
    world.train()
    world.delete_pod("digits-1")
    world.settle()
    assert world.status["state"] == "Running"
    assert world.created == [0, 1, 2, 3, 1]
    assert "restarts" not in world.status
    assert "lastFailure" not in world.status


def test_a_vanished_worker_that_is_still_connected_is_told_to_the_coordinator():
    world = World()
    world.train()
    del world.pods["digits-1"]  # Its connection lives on, as on a dead node.
    world.settle()
    assert [(loss.worker, loss.cause) for loss in world.lost] == [("digits-1", "Preempted")]
    assert "digits-1" not in world.report.connected


def test_a_pod_stuck_on_a_dead_node_keeps_its_index_and_holds_nothing_up():
    world = World()
    world.train()
    world.dead_nodes.add("node1")  # Workers 1 and 3.
    world.disconnect("digits-1")
    for index in (1, 3):
        world.pod(index, node_lost=True)
    world.settle()
    assert [(loss.worker, loss.cause) for loss in world.lost] == [("digits-3", "Unreachable")]
    assert world.pods["digits-1"].deleting
    assert world.pods["digits-3"].deleting
    assert world.created == [0, 1, 2, 3, 4, 5]
    assert "restarts" not in world.status
    assert world.status["workers"]["names"] == ["digits-0", "digits-2", "digits-4", "digits-5"]
    world.connect(2)
    world.settle()
    assert world.condition("Degraded")["status"] == "False"


def test_a_pod_given_to_a_dead_node_is_replaced_after_a_minute():
    world = World()
    world.settle()
    world.pod(1, node="node1", given=True, given_at=world.now)
    assert world.settle().requeue_after == timedelta(seconds=60)
    world.dead_nodes.add("node1")
    world.pass_time(59)
    assert world.settle().requeue_after == timedelta(seconds=1)
    assert not world.pods["digits-1"].deleting
    world.pass_time(1)
    world.settle()
    assert world.pods["digits-1"].deleting
    assert world.created == [0, 1, 2, 3, 4]
    assert "restarts" not in world.status


def test_a_silent_nodes_worker_that_the_coordinator_hears_is_left_in_peace():
    world = World()
    world.train()
    world.pod(1, node_lost=True)
    world.asked = replace(world.asked, lost=frozenset({world.pods["digits-1"].uid}))
    world.settle()
    assert not world.pods["digits-1"].deleting
    assert world.created == [0, 1, 2, 3]


def test_a_failed_jobs_pods_on_a_dead_node_are_deleted_once():
    world = World()
    world.train()
    world.end_pod(0, 70)
    world.pod(1, deleting=True)
    world.dead_nodes.add("node1")
    world.step()
    deleted = [a.name for a in world.step().actions if isinstance(a, DeletePod)]
    assert deleted == ["digits-2", "digits-3"]
