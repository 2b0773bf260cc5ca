"""Stalls, the end's leftovers, the time to live, other managers, and what status tells of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from operator_world import SHA, START, World, told

from shardwise.api.types import OptimizationJobStatus
from shardwise.coordinator.report import CheckpointState, Loss
from shardwise_operator.actions import CloseTask, DeleteJob


def recovered(world, count=1, cause="Killed"):
    loss = Loss(
        worker="digits-2", index=2, cause=cause, at=world.now.timestamp(), step=7, seconds=0.0421
    )
    world.coordinator(
        recoveries={cause: count, "Joined": 3},
        losses=(loss,),
        seconds={"productive": 97.0, "recovery": 2.0, "waiting": 1.0},
        lost_steps=2,
    )


def test_a_stall_is_told_and_then_all_workers_are_restarted_once():
    world = World(stallTimeoutSeconds=60)
    world.train()
    assert world.settle().requeue_after == timedelta(seconds=60)
    world.pass_time(60)
    decision = world.step()
    assert world.condition("Progressing")["reason"] == "Stalled"
    assert world.status["restarts"]["inWindow"] == 1
    assert len(world.pods) == 4
    assert [reason for reason, _ in world.events(decision)] == ["Stalled"]
    world.settle()
    assert world.created == [0, 1, 2, 3, 0, 1, 2, 3]
    assert world.status["restarts"]["total"] == 1
    world.connect(2)
    world.settle()
    assert world.condition("Progressing")["status"] == "True"
    assert world.status["restarts"]["total"] == 1


def test_stalls_spend_the_budget():
    world = World(stallTimeoutSeconds=60, restartPolicy={"maxRestarts": 0})
    world.train()
    world.pass_time(60)
    world.settle()
    assert world.status["reason"] == "RestartBudgetExceeded"
    assert "stalled at step 5" in world.status["message"]


def test_a_stall_that_the_operator_did_not_live_to_act_on_is_acted_on():
    world = World(stallTimeoutSeconds=60)
    world.train()
    world.pass_time(60)
    world.step()
    world.restart_operator()
    world.settled = False
    world.settle(rounds=12)
    assert len(world.created) == 8
    assert world.status["restarts"]["total"] == 1


def test_waiting_below_the_minimum_says_why():
    world = World(workers={"replicas": 4, "min": 3})
    world.train()
    for name in ("digits-2", "digits-3"):
        world.delete_pod(name)
    world.coordinator(state="waiting", waiting="2 of 4 workers are ready, at least 3 are needed")
    world.settle()
    assert (world.status["state"], world.status["reason"]) == ("Recovering", "Recovering")
    assert "at least 3 are needed" in world.status["message"]
    assert world.condition("Running")["status"] == "False"
    world.pod(2, unschedulable="0/2 nodes: cpu")
    world.settle()
    assert (world.status["state"], world.status["reason"]) == ("Waiting", "Unschedulable")
    assert "at least 3 are needed" in world.status["message"]
    world.pod(2, unschedulable="")
    world.connect(2)
    world.settle()
    assert world.status["state"] == "Running"


def test_fewer_workers_degrade_the_job_with_what_is_in_their_way():
    world = World()
    world.train()
    world.delete_pod("digits-1")
    world.settle()
    world.pod(1, unschedulable="0/2 nodes: cpu")
    world.settle()
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "Unschedulable")
    assert "3 of 4 workers train" in degraded["message"]
    assert world.status["state"] == "Running"


def test_recoveries_and_goodput_are_told_and_outlive_the_operator():
    world = World()
    world.train()
    recovered(world)
    decision = world.step()
    assert world.status["recoveries"] == 1
    assert world.status["recoveriesByCause"] == [
        {"cause": "Joined", "count": 3},
        {"cause": "Killed", "count": 1},
    ]
    assert world.status["goodput"] == "0.970"
    assert world.status["goodputSeconds"][0] == {"kind": "productive", "seconds": "97.00"}
    assert world.status["lastRecovery"]["seconds"] == "0.042"
    assert world.status["lostSteps"] == 2
    assert ("Recovered", "training went on 0.042 s after digits-2 was lost (Killed) at step 7") in (
        world.events(decision)
    )
    assert world.settle().actions == ()
    world.restart_operator()
    world.settled = False
    world.settle()
    assert world.opened.recoveries == {"Joined": 3, "Killed": 1}
    assert world.opened.seconds == {"productive": 97.0, "recovery": 2.0, "waiting": 1.0}
    assert world.opened.lost_steps == 2
    assert world.status["recoveries"] == 1
    assert world.status["state"] == "Running"
    OptimizationJobStatus.model_validate(world.status)


def test_checkpoints_are_told():
    spec = {"everySteps": 5, "url": "s3://bucket/jobs"}
    world = World(checkpoint=spec, workers={"replicas": 4, "detectionMilliseconds": 250})
    world.train()
    assert (world.opened.checkpoint, world.opened.detection_seconds) == (spec, 0.25)
    assert world.condition("Checkpointed")["reason"] == "CheckpointPending"
    good = CheckpointState(step=10, at=START.timestamp(), bytes=1000, seconds=0.5)
    world.coordinator(checkpoint=good)
    world.settle()
    assert world.status["checkpoint"]["step"] == 10
    assert world.condition("Checkpointed")["status"] == "True"
    world.coordinator(checkpoint=replace(good, error="No space left on device"))
    world.settle()
    assert world.status["checkpoint"]["step"] == 10
    failed = world.condition("Checkpointed")
    assert failed["reason"] == "CheckpointFailed"
    assert "No space left" in failed["message"]
    assert world.status["state"] == "Running"


@pytest.mark.parametrize(
    ("policy", "kept"), [("None", {0, 1, 2, 3}), ("Running", {0}), ("All", set())]
)
def test_the_pod_policy_says_what_goes_after_the_end(policy, kept):
    world = World(cleanPodPolicy=policy)
    world.train()
    world.end_pod(0, 0, termination=told())
    world.settle()
    assert len(world.pods) == 4
    assert world.step().requeue_after == (timedelta(seconds=10) if policy != "None" else None)
    world.pass_time(10)
    world.settle()
    assert {pod.index for pod in world.pods.values()} == kept


@pytest.mark.parametrize("seconds", [0, 100])
def test_a_finished_job_is_deleted_after_its_time(seconds):
    world = World(ttlSecondsAfterFinished=seconds, cleanPodPolicy="None")
    world.train()
    world.end_pod(0, 0, termination=told())
    world.step()
    if seconds:
        decision = world.settle()
        assert decision.requeue_after == timedelta(seconds=100)
        assert not world.job_deleted
        world.pass_time(seconds)
    assert DeleteJob() in world.step().actions


def test_a_result_that_the_coordinator_knows_needs_no_pod():
    world = World()
    world.train()
    world.coordinator(state="finished", result={"steps": 20, "weightsSha256": SHA})
    world.delete_pod("digits-0")
    assert world.settle().requeue_after == timedelta(seconds=5)
    assert world.status["state"] == "Running"
    world.pass_time(5)
    world.settle()
    assert world.status["state"] == "Succeeded"
    assert "digits-0" not in world.pods
    assert world.status["result"]["weightsSha256"] == SHA


@pytest.mark.parametrize("manager", ["shardwise.dev/operator", None])
def test_a_job_of_ours_is_worked_on(manager):
    world = World(**({"managedBy": manager} if manager else {}))
    world.settle()
    assert len(world.pods) == 4


def test_a_job_of_another_manager_is_left_alone():
    world = World(managedBy="kueue.x-k8s.io/multikueue")
    decision = world.step()
    assert decision.actions == ()
    assert decision.status is None
    assert "multikueue" in decision.why[0]


def test_a_job_that_is_handed_over_is_let_go_of():
    world = World()
    world.train()
    before = json.dumps(world.status)
    world.raw["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
    assert any(isinstance(action, CloseTask) for action in world.step().actions)
    world.settle()
    assert len(world.pods) == 4
    assert json.dumps(world.status) == before


def test_the_adopted_group_counts_as_training_while_its_workers_come_back():
    world = World()
    world.train(generation=3)
    world.restart_operator()
    world.settled = False
    world.settle()
    assert world.opened.generation_floor == 3
    assert world.status["state"] == "Running"
    world.settled = True
    world.settle()
    assert world.status["state"] == "Recovering"
