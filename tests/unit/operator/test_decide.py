"""What follows from what: the course of a job, its ends, and its troubles."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from operator_world import SHA, START, World, manifest, told

from shardwise.api.types import OptimizationJobStatus
from shardwise_operator.actions import (
    CreatePod,
    CreateService,
    DeletePod,
    EmitEvent,
    OpenTask,
    ResizeTask,
)
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
        (None, {"pod_reason": "OutOfcpu"}, "Preempted", "OutOfcpu", 0),
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
    world.pod(1, node="node1", given_at=world.now)
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


STEPS = {"steps": [{"name": "prune", "prune": {"sparsity": "0.5"}}]}
TASKS = {"list": [{"name": "one"}]}
OTHER_STEPS = {"steps": [{"name": "int8", "quantize": {}}]}
LISTED = {"list": [{"name": "theta-1"}]}


@pytest.mark.parametrize("pods_left", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "surely", "perhaps"),
    [
        ({"compression": STEPS}, {"compression": OTHER_STEPS}, "spec.compression", None),
        ({"compression": STEPS}, {}, "spec.compression", None),
        ({}, {"compression": STEPS}, "spec.compression", "spec.compression"),
        ({}, {"tasks": TASKS}, "spec.tasks", "spec.tasks"),
        ({"tasks": TASKS}, {}, "spec.tasks", None),
        ({}, {"trainer": {"seed": 3}}, "spec.trainer", None),
        (
            {},
            {"trainer": {"seed": 3}, "compression": STEPS},
            "spec.trainer and spec.compression",
            None,
        ),
        ({}, {"tasks": LISTED}, "spec.tasks", "spec.tasks"),
        (
            {"compression": STEPS},
            {"compression": STEPS, "tasks": LISTED},
            "spec.tasks",
            "spec.tasks",
        ),
        ({"tasks": LISTED}, {"tasks": LISTED, "compression": STEPS}, *["spec.compression"] * 2),
        ({"tasks": LISTED}, {}, "spec.tasks", None),
        (
            {},
            {"tasks": LISTED, "compression": STEPS},
            *["spec.compression and spec.tasks"] * 2,
        ),
    ],
)
def test_the_message_names_what_was_changed(pods_left, before, after, surely, perhaps):
    world = World(**before)
    world.train()
    accepted = world.opened.trainer
    assert ("compression" in accepted) == ("compression" in before)
    world.raw["spec"] = manifest(**after)["spec"]
    if not pods_left:
        world.pods.clear()
    world.step()
    told = world.condition("Accepted")
    assert told["reason"] == "ImmutableFieldChanged"
    named = surely if pods_left else perhaps or "spec.trainer, spec.compression or spec.tasks"
    assert told["message"].startswith(f"{named}: was changed after the start")
    if pods_left:
        world.report = None
        opened = [a for a in world.step().actions if isinstance(a, OpenTask)]
        assert opened[0].trainer == accepted


ROWS = [
    {"name": "trained", "metric": "accuracy 0.9800", "bytes": 5000, "parameters": 9, "macs": 8},
    {"name": "prune", "metric": "accuracy 0.9700", "bytes": 900, "latencyMilliseconds": "0.512"},
]
ARTIFACTS = [
    {"name": name, "path": f"/output/digits/{name}", "bytes": 9, "sha256": "b" * 64}
    for name in ("model.safetensors", "model.onnx")
]
COMPRESSED = {
    "steps": 20,
    "weightsSha256": SHA,
    "artifacts": ARTIFACTS,
    "compression": {"rows": ROWS, "undone": ""},
}


def compressed(**changes):
    return told("succeeded", result={**COMPRESSED, **changes})


def test_a_compression_shows_its_stage_and_its_table():
    world = World(compression=STEPS)
    world.train(step=20)
    assert world.status["progress"]["percent"] == 100
    progress = replace(world.report.progress, stage="compression: prune", eta_seconds=0.0)
    world.coordinator(progress=progress)
    world.settle()
    assert world.status["state"] == "Running"
    assert world.status["message"] == "compression: prune, generation 1 on 4 workers"
    assert world.status["progress"]["stage"] == "compression: prune"
    assert world.status["progress"]["percent"] == 99, "it is not done yet"
    assert "estimatedRemaining" not in world.status["progress"]
    world.end_pod(0, 0, termination=compressed())
    world.settle()
    assert world.status["state"] == "Succeeded"
    assert world.status["progress"]["percent"] == 100
    assert "stage" not in world.status["progress"]
    assert world.status["artifacts"] == ARTIFACTS
    assert world.status["compression"] == {"rows": ROWS}
    assert "compressed from 5000 to 900 bytes, accuracy 0.9700" in world.status["message"]
    OptimizationJobStatus.model_validate(world.status)


def test_the_step_that_the_guard_took_back_is_told():
    world = World(compression=STEPS)
    world.train()
    world.end_pod(0, 0, termination=compressed(compression={"rows": ROWS, "undone": "prune"}))
    world.settle()
    assert world.status["compression"]["undone"] == "prune"
    assert world.status["message"].endswith(
        "from 5000 to 5000 bytes, accuracy 0.9800; the guard took step prune back"
    )


def test_what_a_pod_had_no_room_for_comes_from_the_coordinator():
    world = World(compression=STEPS)
    world.train()
    world.coordinator(state="finished", result=COMPRESSED)
    short = {key: value for key, value in COMPRESSED.items() if key != "compression"}
    world.end_pod(0, 0, termination=told("succeeded", result=short))
    world.settle()
    assert world.status["compression"]["rows"] == ROWS
    assert world.status["result"]["pod"] == "digits-0"


@pytest.mark.parametrize(
    ("changes", "artifacts", "rows"),
    [
        ({"artifacts": "x", "compression": "y"}, None, None),
        ({"artifacts": [3, {"path": "/"}, ARTIFACTS[0]]}, ARTIFACTS[:1], ROWS),
        ({"compression": {"rows": [{"bytes": -1}, ROWS[0]]}}, ARTIFACTS, ROWS[:1]),
        (
            {"compression": {"rows": [ROWS[0], {"name": "trained"}]}},
            ARTIFACTS,
            [ROWS[0], {"name": "trained'"}],
        ),
    ],
)
def test_a_table_of_another_form_spoils_nothing(changes, artifacts, rows):
    world = World(compression=STEPS)
    world.train()
    world.end_pod(0, 0, termination=compressed(**changes))
    world.settle()
    assert world.status["state"] == "Succeeded"
    assert world.status.get("artifacts") == artifacts
    assert (world.status.get("compression") or {}).get("rows") == rows


def test_scaling_changes_the_group_and_its_pods():
    world = World(workers={"replicas": 4, "min": 2, "max": 6})
    world.train()
    world.raw["spec"]["workers"]["replicas"] = 6
    decision = world.step()
    assert ResizeTask(workers=6, min_workers=2) in decision.actions
    world.settle()
    assert world.created == [0, 1, 2, 3, 4, 5]
    world.connect(2)
    world.raw["spec"]["workers"]["replicas"] = 3
    deleted = [a.name for a in world.step().actions if isinstance(a, DeletePod)]
    assert deleted == ["digits-3", "digits-4", "digits-5"]
    world.settle()
    assert world.status["workers"]["desired"] == 3
    assert world.created == [0, 1, 2, 3, 4, 5]


def test_a_changed_minimum_is_passed_on():
    world = World()
    world.train()
    world.raw["spec"]["workers"]["min"] = 3
    assert ResizeTask(workers=4, min_workers=3) in world.step().actions
    assert world.settle().actions == ()


@pytest.mark.parametrize(("asked", "used"), [(9, 6), (1, 2)])
def test_a_scale_beyond_the_bounds_is_clamped_and_said(asked, used):
    world = World(workers={"replicas": 4, "min": 2, "max": 6})
    world.train()
    world.raw["spec"]["workers"]["replicas"] = asked
    world.settle()
    assert world.status["workers"]["desired"] == used
    accepted = world.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "ReplicasClamped")
    assert f"the job uses {used}" in accepted["message"]


def test_pods_that_do_not_run_go_first_and_those_that_the_coordinator_lets_go():
    world = World(workers={"replicas": 3, "max": 4, "standby": 1})
    world.train()
    assert world.report.members == ("digits-0", "digits-1", "digits-2")
    world.raw["spec"]["workers"]["replicas"] = 2
    deleted = [a.name for a in world.step().actions if isinstance(a, DeletePod)]
    assert deleted == ["digits-2"]  # Worker 3 stands by, and goes on standing by.


def test_standbys_are_workers_beside_the_replicas():
    world = World(workers={"replicas": 2, "standby": 1})
    world.train()
    assert world.created == [0, 1, 2]
    assert world.opened.workers == 2
    assert world.status["workers"]["standby"] == 1
    assert world.status["workers"]["summary"] == "3/3"
    assert world.condition("Degraded")["status"] == "False"


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


def test_a_failed_jobs_pods_on_a_dead_node_are_deleted_once():
    world = World()
    world.train()
    world.end_pod(0, 70)
    world.pod(1, deleting=True)
    world.dead_nodes.add("node1")
    world.step()
    deleted = [a.name for a in world.step().actions if isinstance(a, DeletePod)]
    assert deleted == ["digits-2", "digits-3"]


def test_a_condition_keeps_the_time_of_its_change():
    world = World()
    world.train()
    since = world.condition("Running")["lastTransitionTime"]
    world.pass_time(30)
    world.settle()
    assert world.condition("Running")["lastTransitionTime"] == since
