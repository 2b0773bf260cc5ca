"""What follows from what: the course of a job, its ends, and what holds up its start."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from operator_world import SHA, START, World, told

from shardwise.api.types import OptimizationJobStatus
from shardwise_operator.actions import CreatePod, CreateService, EmitEvent, OpenTask
from shardwise_operator.observe import CreationError


def test_a_new_job_gets_a_service_a_task_and_its_pods():
    world = World()
    decision = world.step()
    kinds = [type(action) for action in decision.actions if not isinstance(action, EmitEvent)]
    assert kinds == [CreateService, *[CreatePod] * 4, OpenTask]
    assert world.status["state"] == "Pending"
    assert world.status["workers"]["summary"] == "0/4"
    assert world.settle().actions == ()
    OptimizationJobStatus.model_validate(world.status)


def test_training_shows_progress_and_success_ends_it():
    world = World()
    world.train()
    assert world.status["state"] == "Running"
    assert world.status["progress"]["percent"] == 25
    assert world.status["progress"]["estimatedRemaining"] == "2m10s"
    assert world.condition("Running")["status"] == "True"
    world.end_pod(2, 0, termination=told())  # Whoever led the last generation.
    world.settle()
    assert world.status["state"] == "Succeeded"
    assert world.status["result"]["pod"] == "digits-2"
    assert world.status["progress"]["percent"] == 100
    assert world.status["result"]["weightsSha256"] == SHA
    assert world.status["result"]["metrics"] == [{"name": "accuracy", "value": "0.98"}]
    assert len(world.pods) == 4
    assert world.report is None
    for index in (0, 1):
        world.end_pod(index, 0, termination=told("succeeded", result=None))
    world.pass_time(10)
    world.settle()
    assert set(world.pods) == {"digits-0", "digits-1", "digits-2"}  # Kept for their logs.


def test_the_end_is_read_from_the_pods_after_a_restart():
    world = World()
    world.train()
    for index in range(4):
        world.end_pod(index, 0, termination=told() if index == 0 else "")
    world.report = None
    world.settle()
    assert world.status["state"] == "Succeeded"


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"unschedulable": "0/2 nodes: cpu"}, "Unschedulable", "0/2 nodes: cpu"),
        ({"waiting_reason": "ImagePullBackOff"}, "ImagePullFailed", "spec.trainer.image"),
        ({"waiting_reason": "ErrImagePull"}, "ImagePullFailed", "spec.trainer.image"),
        ({"waiting_reason": "InvalidImageName"}, "ImagePullFailed", "spec.trainer.image"),
        (
            {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "x"'},
            "ContainerConfigError",
            'secret "x"',
        ),
    ],
)
def test_pods_that_do_not_start_are_explained(changes, reason, words):
    world = World()
    world.settle()
    world.pod(1, **changes)
    world.settle()
    assert (world.status["state"], world.status["reason"]) == ("Waiting", reason)
    assert words in world.status["message"]
    world.run_pods()
    world.pod(1, unschedulable="", waiting_reason="")
    world.settle()
    assert world.status["state"] == "Starting"


def test_a_quota_is_named_and_tried_again_later():
    world = World()
    world.errors = (
        CreationError(
            what="pod digits-0",
            status=403,
            reason="QuotaExceeded",
            message="exceeded quota: tight",
            retry_at=START + timedelta(seconds=10),
        ),
    )
    decision = world.settle()
    assert world.status["reason"] == "QuotaExceeded"
    assert "raise the namespace's quota" in world.status["message"]
    assert decision.requeue_after == timedelta(seconds=10)
    assert not world.pods
    assert "specSha256" not in world.status  # Not started: the spec may still change.
    world.pass_time(10)
    world.settle()
    assert len(world.pods) == 4


def test_the_startup_deadline_counts_from_the_jobs_creation_and_tells_what_it_waited_for():
    world = World(startupDeadlineSeconds=60)
    world.settle()
    world.pod(0, unschedulable="no node")
    assert world.settle().requeue_after == timedelta(seconds=60)
    world.pass_time(60)
    world.settle()
    assert world.status["reason"] == "StartupDeadlineExceeded"
    assert "no node" in world.status["message"]
    assert not world.pods


def test_the_active_deadline_counts_the_time_of_training_alone():
    world = World(activeDeadlineSeconds=60, startupDeadlineSeconds=100)
    world.pass_time(90)
    world.train()
    assert world.settle().requeue_after == timedelta(seconds=60)
    world.pass_time(20)
    world.raw["spec"]["suspend"] = True
    world.settle()
    world.pass_time(60)  # Longer than workers are waited for.
    world.settle()
    assert world.status["state"] == "Suspended"
    assert world.status["activeSeconds"] == 20
    world.pass_time(3600)
    world.settle()
    world.raw["spec"]["suspend"] = False
    world.train(generation=2)
    assert world.settle().requeue_after == timedelta(seconds=40)
    world.pass_time(40)
    world.settle()
    assert world.status["reason"] == "ActiveDeadlineExceeded"
    assert world.status["activeSeconds"] == 60


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_after_the_end_nothing_is_made_and_the_status_stays(end):
    world = World()
    world.train()
    for index in range(4):
        code = 70 if end == "Failed" else 0
        world.end_pod(index, code, termination=told() if not code else "")
    world.settle()
    assert world.status["state"] == end
    before = json.dumps(world.status)
    world.pods.clear()
    world.raw["spec"]["trainer"]["seed"] = 9
    world.pass_time(1000)
    assert world.settle().actions == ()
    assert json.dumps(world.status) == before


def test_a_job_that_is_being_deleted_is_left_to_the_garbage_collector():
    world = World()
    world.train()
    world.raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    world.settle()
    assert world.report is None
    assert len(world.pods) == 4


def test_a_condition_keeps_the_time_of_its_change():
    world = World()
    world.train()
    since = world.condition("Running")["lastTransitionTime"]
    world.pass_time(30)
    world.settle()
    assert world.condition("Running")["lastTransitionTime"] == since
