"""Ways in which a job can be stuck or fail: `get`, `describe` and `explain` name each.

The status is the operator's own decision about such a world, so a message that loses its cause or
its remedy fails here. tests/cluster/test_troubles.py makes them on a real cluster.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from cli_api import as_table
from samples import NOW, pod

sys.path.insert(0, str(Path(__file__).parents[1] / "operator"))

from operator_world import START, World, told

from shardwise.checkpoint import remedy
from shardwise.cli.get import printed
from shardwise.cli.view.describe import describe
from shardwise.cli.view.explain import explain
from shardwise.cli.view.style import PLAIN
from shardwise.coordinator.report import CheckpointState
from shardwise.engine.finite import check
from shardwise.engine.usercode import NotFiniteError
from shardwise_operator.observe import ConfigMapView, CreationError


@dataclass(frozen=True)
class Case:
    """A world brought into trouble, and what must be said of it."""

    make: Callable[[], World]
    state: str
    reason: str
    cause: str
    remedy: str
    next: str = ""


def starting(**spec) -> World:
    world = World(**spec)
    world.settle()
    return world


def training(**spec) -> World:
    world = World(**spec)
    world.train()
    return world


def unschedulable() -> World:
    world = starting()
    world.pod(1, unschedulable="0/2 nodes are available: 2 Insufficient memory.")
    return world


def image() -> World:
    world = starting()
    world.pod(1, waiting_reason="ImagePullBackOff", waiting_message="no such image")
    return world


def refused(reason: str, message: str) -> World:
    world = World()
    at = START + timedelta(seconds=10)
    world.errors = (
        CreationError(what="pod digits-0", status=403, reason=reason, message=message, retry_at=at),
    )
    return world


def config_map() -> World:
    world = World(trainer={"codeFrom": {"configMap": "my-code"}})
    world.configmap = ConfigMapView(name="my-code", sha256=None)
    return world


def failed(reason: str, code: int, message: str, detail: str = "") -> World:
    world = training()
    said = told("failed", reason=reason, message=message, detail=detail)
    world.end_pod(2, code, termination=said)
    return world


def not_finite(step: int, loss: float) -> str:
    """The engine's own words."""
    with pytest.raises(NotFiniteError) as caught:
        check(step, loss, torch.zeros(1), [])
    return caught.value.message


def out_of_memory() -> World:
    world = training(workers={"replicas": 1})
    for _ in range(2):
        world.run_pods()
        world.end_pod(0, 137, exit_reason="OOMKilled")
        world.coordinator(state="waiting", waiting="0 of 1 workers are ready")
        world.settle()
    return world


def node_gone() -> World:
    world = training(workers={"replicas": 2, "min": 2})
    world.dead_nodes.add("node1")
    world.disconnect("digits-1")
    world.pod(1, node_lost=True)
    world.coordinator(state="waiting", waiting="1 of 2 workers is ready, at least 2 are needed")
    world.settle()
    world.pod(2, unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
    return world


def node_gone_replaced() -> World:
    world = training(workers={"replicas": 2, "min": 1})
    world.dead_nodes.add("node1")
    world.disconnect("digits-1")
    world.pod(1, node_lost=True)
    world.settle()
    return world


def stalled() -> World:
    world = training(stallTimeoutSeconds=60)
    world.pass_time(60)
    world.step()
    return world


def late() -> World:
    world = unschedulable()
    world.raw["spec"]["startupDeadlineSeconds"] = 60
    world.settle()
    world.pass_time(60)
    return world


def below_min() -> World:
    world = training(workers={"replicas": 4, "min": 3})
    for name in ("digits-2", "digits-3"):
        world.delete_pod(name)
    world.coordinator(state="waiting", waiting="2 of 4 workers are ready, at least 3 are needed")
    return world


def suspended() -> World:
    return starting(suspend=True)


def budget() -> World:
    world = training(restartPolicy={"maxRestarts": 0})
    world.end_pod(1, 137, exit_reason="OOMKilled")
    return world


def too_long() -> World:
    world = training(activeDeadlineSeconds=60)
    world.pass_time(60)
    return world


def unreadable() -> str:
    """The reader's own words."""
    return remedy.explain(PermissionError(13, "Permission denied"), "cannot read /checkpoint")


def checkpoint(error: str) -> World:
    world = training(checkpoint={"everySteps": 5, "url": "s3://bucket/jobs"})
    good = CheckpointState(step=10, at=START.timestamp(), bytes=1000, seconds=0.5)
    world.coordinator(checkpoint=replace(good, error=error))
    return world


def scaled_too_far() -> World:
    world = training(workers={"replicas": 2, "max": 4})
    world.raw["spec"]["workers"]["replicas"] = 6
    world.raw["metadata"]["generation"] = 2
    return world


def changed_trainer() -> World:
    world = training()
    world.raw["spec"]["trainer"]["seed"] = 9
    world.raw["metadata"]["generation"] = 2
    return world


CASES = {
    "unschedulable": Case(
        unschedulable,
        *("Waiting", "Unschedulable", "2 Insufficient memory", "free or add nodes"),
        next="kubectl describe pod",
    ),
    "image": Case(
        image,
        *("Waiting", "ImagePullFailed", "no such image", "check spec.trainer.image"),
        next="kubectl describe pod",
    ),
    "quota": Case(
        lambda: refused("QuotaExceeded", "exceeded quota: tight"),
        *("Waiting", "QuotaExceeded", "exceeded quota: tight", "raise the namespace's quota"),
        next="kubectl describe resourcequota",
    ),
    "ConfigMap missing": Case(
        config_map,
        *("Waiting", "ConfigMapMissing", "no ConfigMap my-code", "kubectl create configmap"),
        next="kubectl create configmap",
    ),
    "user exception": Case(
        lambda: failed(
            "UserCodeFailed",
            70,
            "loss raised KeyError: 'label'",
            "Traceback (most recent call last):\nKeyError: 'label'",
        ),
        *("Failed", "UserCodeFailed", "KeyError: 'label'", "Traceback"),
        next="shardwise logs digits",
    ),
    "NaN loss": Case(
        lambda: failed("NotFinite", 70, not_finite(7, math.nan)),
        *("Failed", "NotFinite", "the loss of step 7 is nan", "lower the learning rate"),
        next="shardwise logs digits",
    ),
    "OOM": Case(
        out_of_memory,
        *("Waiting", "OutOfMemory", "used more memory than its limit", "limits.memory"),
        next="kubectl top pod",
    ),
    "node gone": Case(
        node_gone,
        *("Waiting", "Unschedulable", "node node1 does not answer", "free or add nodes"),
        next="kubectl describe pod",
    ),
    "node gone, replaced": Case(
        node_gone_replaced,
        *("Running", "Training", "node node1 does not answer", "replaced elsewhere"),
        next="shardwise watch digits",
    ),
    "stalled": Case(
        stalled,
        *("Running", "Stalled", "spec.stallTimeoutSeconds (60)", "the workers are restarted"),
        next="shardwise logs digits",
    ),
    "deadline": Case(
        late,
        *("Failed", "StartupDeadlineExceeded", "startupDeadlineSeconds (60)", "free or add nodes"),
        next="shardwise describe digits",
    ),
    "below min": Case(
        below_min,
        *("Recovering", "Recovering", "2 of 4 workers are ready, at least 3", "spec.workers.min"),
        next="shardwise watch digits",
    ),
    "suspended": Case(
        suspended,
        *("Suspended", "Suspended", "spec.suspend is true", "shardwise resume digits"),
        next="shardwise resume digits",
    ),
    "budget spent": Case(
        budget,
        *("Failed", "RestartBudgetExceeded", "restartPolicy.maxRestarts (0)", "limits.memory"),
        next="shardwise logs digits",
    ),
    "bad checkpoint": Case(
        lambda: checkpoint("No space left on device"),
        *("Running", "Training", "No space left on device", "check spec.checkpoint"),
        next="shardwise watch digits",
    ),
    "damaged checkpoint": Case(
        lambda: checkpoint("/checkpoint/step-0000000020/part-00000: does not match its hash"),
        *("Running", "Training", "does not match its hash", "check spec.checkpoint"),
        next="shardwise watch digits",
    ),
    "checkpoints that cannot be read": Case(
        lambda: failed("CheckpointFailed", 73, unreadable()),
        *("Failed", "CheckpointFailed", "cannot read /checkpoint", "give group 65532 access"),
        next="shardwise logs digits",
    ),
    "deadline of the training": Case(
        too_long,
        *("Failed", "ActiveDeadlineExceeded", "spec.activeDeadlineSeconds (60)", "raise it"),
        next="shardwise describe digits",
    ),
    "scaled beyond max": Case(
        scaled_too_far,
        *("Running", "Training", "spec.workers.replicas is 6", "scale it to 4"),
    ),
    "trainer changed": Case(
        changed_trainer,
        *("Running", "Training", "was changed after the start", "undo the change"),
    ),
    "RBAC missing": Case(
        lambda: refused("Forbidden", "pods is forbidden"),
        *("Waiting", "Forbidden", "pods is forbidden", "grant the operator the right"),
        next="shardwise doctor",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_each_trouble_is_named_with_its_remedy(case):
    world = case.make()
    if case.reason != "Stalled":  # That is told for one reconcile, then acted on.
        world.settle()
    job = copy.deepcopy(world.raw)

    wide = printed(as_table([job]), True, False, PLAIN)[1].split()
    assert wide[1] == case.state
    assert wide[-1] == case.reason

    explained = "\n".join(explain(job, [pod(0)], [], NOW, width=10_000, paint=PLAIN))
    assert explained.startswith(f"digits is {case.state}: {case.reason}\n")
    for words in (case.cause, case.remedy):
        assert words in explained
    if case.next:
        assert f"Next:\n  {case.next}" in explained

    described = "\n".join(describe(job, [], [], NOW, PLAIN))
    assert f"State:        {case.state} · {case.reason}" in described
    # What `kubectl describe` prints is the status as it is.
    kubectl = json.dumps(job["status"], ensure_ascii=False)
    for words in (case.cause, case.remedy):
        assert words in described
        assert words in kubectl


def test_no_end_is_foretold_for_a_job_that_does_not_train():
    world = below_min()
    assert "estimatedRemaining" in world.status["progress"]
    world.settle()
    assert "estimatedRemaining" not in world.status["progress"]
    assert "estimatedRemainingSeconds" not in world.status["progress"]
    assert world.status["progress"]["step"] == 5


def test_a_node_that_is_gone_is_the_last_failure():
    world = node_gone()
    world.settle()
    failure = world.status["lastFailure"]
    assert (failure["reason"], failure["pod"], failure["node"]) == ("NodeLost", "digits-1", "node1")
