"""What follows from what: the course of a job, its ends, and its troubles."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from operator_world import SHA, START, World, told

from shardwise.api.types import OptimizationJobStatus
from shardwise_operator.actions import CreatePod, CreateService, DeletePod, EmitEvent, OpenTask
from shardwise_operator.observe import ConfigMapView, CreationError


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
    world.end_pod(0, 0, termination=told())
    world.settle()
    assert world.status["state"] == "Running"
    for index in (1, 2, 3):
        world.end_pod(index, 0)
    world.settle()
    assert world.status["state"] == "Succeeded"
    assert world.status["progress"]["percent"] == 100
    assert world.status["result"]["weightsSha256"] == SHA
    assert world.status["result"]["metrics"] == [{"name": "accuracy", "value": "0.98"}]
    assert len(world.pods) == 4  # Kept for their logs.
    assert world.report is None


def test_the_end_is_read_from_the_pods_after_a_restart():
    world = World()
    world.train()
    for index in range(4):
        world.end_pod(index, 0, termination=told() if index == 0 else "")
    world.report = None
    world.settle()
    assert world.status["state"] == "Succeeded"


@pytest.mark.parametrize(
    ("code", "changes", "reason", "words"),
    [
        (1, {}, "WorkerLost", "exit code 1"),
        (70, {}, "UserCodeFailed", "raised"),
        (73, {}, "OutputFailed", "spec.output.volume"),
        (72, {}, "RefusedWorker", "refused"),
        (64, {}, "ContainerConfigError", "environment"),
        (137, {"exit_reason": "OOMKilled"}, "OutOfMemory", "limits.memory"),
        (137, {}, "WorkerLost", "SIGKILL"),
        (137, {"pod_reason": "Evicted", "pod_message": "disk"}, "Evicted", "disk"),
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
    ],
)
def test_a_failed_pod_fails_the_job_and_says_why(code, changes, reason, words):
    world = World()
    world.train()
    world.end_pod(2, code, **changes)
    decision = world.settle()
    assert world.status["state"] == "Failed"
    failure = world.status["lastFailure"]
    assert failure["reason"] == reason
    assert words in failure["message"]
    assert (failure["pod"], failure["rank"], failure["node"]) == ("digits-2", 2, "node0")
    assert failure["exitCode"] == code
    assert set(world.pods) == {"digits-2"}  # Those that ran are removed, the culprit stays.
    assert world.condition("Failed")["status"] == "True"
    assert decision.requeue_after is None


def test_a_log_tail_comes_from_a_worker_that_died_without_a_word():
    world = World()
    world.train()
    world.end_pod(1, 1, termination="Traceback\nSegfault")
    world.settle()
    assert world.status["lastFailure"]["logTail"] == "Traceback\nSegfault"


def test_a_survivor_of_a_lost_group_is_not_the_explanation():
    world = World()
    world.train()
    world.end_pod(0, 71)
    assert world.settle().requeue_after == timedelta(seconds=5)
    assert world.status["state"] == "Running"
    world.end_pod(3, 137, exit_reason="OOMKilled")
    world.settle()
    assert world.status["reason"] == "OutOfMemory"
    assert world.status["lastFailure"]["pod"] == "digits-3"


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


def test_a_lost_group_is_the_explanation_when_nothing_better_comes():
    world = World()
    world.train()
    world.end_pod(0, 71)
    world.settle()
    world.pass_time(5)
    world.settle()
    assert world.status["reason"] == "WorkerLost"


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


def test_a_pod_that_vanishes_in_training_is_lost_not_replaced():
    world = World()
    world.train()
    del world.pods["digits-1"]
    world.settle()
    assert world.status["reason"] == "WorkerLost"
    assert "digits-1" in world.status["message"]
    assert world.created == [0, 1, 2, 3]


def test_an_adopted_task_counts_as_begun_even_where_the_status_does_not_tell():
    world = World()
    world.settle()
    world.run_pods()
    world.coordinator(generation=3, state="training")
    del world.pods["digits-1"]
    world.settle()
    assert world.status["reason"] == "WorkerLost"


def test_a_pod_that_vanishes_before_training_is_made_again():
    world = World()
    world.settle()
    del world.pods["digits-1"]
    world.settle()
    assert world.created == [0, 1, 2, 3, 1]


def test_after_a_restart_running_workers_are_waited_for_before_pods_are_made():
    world = World()
    world.settle()
    world.run_pods()
    del world.pods["digits-1"]
    world.settled = False
    decision = world.settle()
    assert world.created == [0, 1, 2, 3]
    assert decision.requeue_after == timedelta(seconds=2)


def test_an_invalid_spec_is_refused_once_and_left_alone():
    world = World(workers={"replicas": 9})
    decision = world.settle()
    assert world.status["state"] == "Invalid"
    assert "spec.workers.replicas" in world.status["message"]
    assert world.condition("Accepted")["status"] == "False"
    assert decision.requeue_after is None
    assert not world.pods
    world.raw["spec"]["workers"]["replicas"] = 2
    world.settle()
    assert len(world.pods) == 2


def test_a_changed_trainer_is_told_about_and_changes_nothing():
    world = World()
    world.train()
    world.raw["spec"]["trainer"]["seed"] = 5
    world.report = None  # The operator was restarted too.
    opened = [a for a in world.step().actions if isinstance(a, OpenTask)]
    assert opened[0].trainer["seed"] == 0
    assert opened[0].generation_floor == 1
    assert world.condition("Accepted")["reason"] == "ImmutableFieldChanged"
    assert world.status["state"] == "Running"


def test_changed_replicas_keep_the_number_that_it_started_with():
    world = World()
    world.train()
    world.raw["spec"]["workers"]["replicas"] = 6
    world.settle()
    assert world.status["workers"]["desired"] == 4
    assert "keeps the 4 workers" in world.condition("Accepted")["message"]
    assert len(world.pods) == 4


def test_a_missing_configmap_is_waited_for_and_its_hash_is_kept():
    world = World(trainer={"codeFrom": {"configMap": "code"}})
    world.configmap = ConfigMapView(name="code", sha256=None)
    decision = world.settle()
    assert world.status["reason"] == "ConfigMapMissing"
    assert "kubectl create configmap code" in world.status["message"]
    assert decision.requeue_after == timedelta(seconds=5)
    assert not world.pods
    world.configmap = ConfigMapView(name="code", sha256=SHA)
    world.settle()
    assert world.status["code"] == {"configMap": "code", "sha256": SHA}
    world.configmap = ConfigMapView(name="code", sha256="b" * 64)
    world.settle()
    assert world.status["code"]["sha256"] == SHA


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


def test_the_active_deadline_counts_from_the_beginning_of_training():
    world = World(activeDeadlineSeconds=60, startupDeadlineSeconds=100)
    world.pass_time(90)
    world.train()
    assert world.settle().requeue_after == timedelta(seconds=60)
    world.pass_time(60)
    world.settle()
    assert world.status["reason"] == "ActiveDeadlineExceeded"


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_after_the_end_nothing_is_made_and_the_status_stays(end):
    world = World()
    world.train()
    for index in range(4):
        code = 1 if end == "Failed" else 0
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


def test_a_failed_jobs_pods_on_a_dead_node_are_deleted_once():
    world = World()
    world.train()
    world.end_pod(0, 1)
    world.pod(1, deleting=True)
    deleted = [a.name for a in world.step().actions if isinstance(a, DeletePod)]
    assert deleted == ["digits-2", "digits-3"]


def test_a_condition_keeps_the_time_of_its_change():
    world = World()
    world.train()
    since = world.condition("Running")["lastTransitionTime"]
    world.pass_time(30)
    world.settle()
    assert world.condition("Running")["lastTransitionTime"] == since
