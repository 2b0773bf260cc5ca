"""Suspend and resume: workers leave with a checkpoint, pods go, and the job goes on later."""

from __future__ import annotations

from datetime import timedelta

from operator_world import World, told

from shardwise_operator.actions import CreatePod, DrainTask, OpenTask


def suspend(world, value=True):
    world.raw["spec"]["suspend"] = value


def leave(world):
    for pod in list(world.pods.values()):
        if pod.running:
            world.end_pod(pod.index, 0, termination=told("left", message="drained"))


def test_workers_are_drained_and_then_their_pods_go():
    world = World()
    world.train(generation=3)
    suspend(world)
    decision = world.settle()
    assert world.asked.draining
    assert world.status["state"] == "Suspending"
    assert world.condition("Running")["reason"] == "Suspending"
    assert decision.requeue_after == timedelta(seconds=60)
    assert len(world.pods) == 4
    leave(world)
    world.settle()
    assert not world.pods
    assert world.report is None
    assert world.status["state"] == "Suspended"
    assert world.condition("Suspended")["status"] == "True"
    assert world.condition("Progressing")["status"] == "False"
    assert world.status["progress"]["step"] == 5
    assert world.status["workers"]["generation"] == 3
    assert "lastFailure" not in world.status


def test_a_resumed_job_goes_on_above_its_generations():
    world = World()
    world.train(generation=3)
    suspend(world)
    world.settle()
    leave(world)
    world.settle()
    suspend(world, False)
    decision = world.step()
    opened = [action for action in decision.actions if isinstance(action, OpenTask)]
    assert (opened[0].generation_floor, opened[0].reached_step) == (3, 5)
    assert sum(isinstance(action, CreatePod) for action in decision.actions) == 4
    world.settle()
    assert world.status["state"] == "Pending"
    assert world.condition("Suspended")["reason"] == "Resumed"
    world.connect(4)
    world.settle()
    assert world.status["state"] == "Running"


def test_workers_that_do_not_leave_are_deleted_after_a_while():
    world = World()
    world.train()
    suspend(world)
    world.settle()
    world.pass_time(59)
    world.settle()
    assert len(world.pods) == 4
    world.pass_time(1)
    world.settle()
    assert world.status["state"] == "Suspended"


def test_pods_that_never_started_are_not_waited_for():
    world = World()
    world.settle()
    suspend(world)
    world.settle()
    assert not world.pods
    assert world.status["state"] == "Suspended"


def test_a_job_that_is_made_suspended_has_no_pods_and_may_still_be_changed():
    world = World(suspend=True)
    world.settle()
    assert world.status["state"] == "Suspended"
    assert not world.created
    assert "specSha256" not in world.status
    world.raw["spec"]["trainer"]["seed"] = 3
    suspend(world, False)
    world.settle()
    assert world.created == [0, 1, 2, 3]
    assert world.condition("Accepted")["status"] == "True"


def test_a_pod_stuck_on_a_dead_node_does_not_hold_the_suspension_up():
    world = World()
    world.train()
    world.dead_nodes.add("node1")
    suspend(world)
    world.settle()
    world.pass_time(60)
    world.settle()
    assert world.status["state"] == "Suspended"
    assert "2 pods are still being deleted" in world.status["message"]
    assert all(pod.deleting for pod in world.pods.values())


def test_a_drain_that_has_begun_is_carried_through_before_the_job_goes_on():
    world = World()
    world.train()
    suspend(world)
    world.settle()
    suspend(world, False)
    world.settle()
    assert world.status["state"] == "Suspending"
    leave(world)
    world.settle(rounds=12)
    assert world.created == [0, 1, 2, 3, 0, 1, 2, 3]
    assert not world.asked.draining


def test_an_operator_that_was_restarted_drains_again():
    world = World()
    world.train()
    suspend(world)
    world.settle()
    world.restart_operator()
    world.settled = False
    kinds = [type(action) for action in world.step().actions]
    assert OpenTask in kinds
    assert DrainTask in kinds
    assert len(world.pods) == 4


def test_a_result_that_comes_while_the_job_is_suspended_ends_it():
    world = World()
    world.train()
    suspend(world)
    world.settle()
    world.end_pod(0, 0, termination=told())
    world.settle()
    assert world.status["state"] == "Succeeded"


def test_the_startup_deadline_begins_anew_at_a_resume():
    world = World(startupDeadlineSeconds=60)
    world.train()
    suspend(world)
    world.settle()
    leave(world)
    world.pass_time(3600)
    world.settle()
    suspend(world, False)
    assert world.settle().requeue_after == timedelta(seconds=60)
    world.pass_time(60)
    world.settle()
    assert world.status["reason"] == "StartupDeadlineExceeded"


def test_failures_on_the_way_out_are_not_counted():
    world = World()
    world.train()
    suspend(world)
    world.settle()
    for index in range(4):
        world.end_pod(index, 137)
    world.settle()
    assert world.status["state"] == "Suspended"
    assert "restarts" not in world.status
