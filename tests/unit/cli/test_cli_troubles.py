"""Ways in which a job can be stuck or fail: `get`, `describe` and `explain` name each.

The status is the operator's own decision about such a world, so a message that loses its cause or
its remedy fails here.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cli_api import as_table
from samples import NOW, pod

sys.path.insert(0, str(Path(__file__).parents[1] / "operator"))

from operator_world import START, World, told

from shardwise.cli.get import printed
from shardwise.cli.view.describe import describe
from shardwise.cli.view.explain import explain
from shardwise.cli.view.style import PLAIN
from shardwise.coordinator.report import CheckpointState
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


def user_error(message: str) -> World:
    world = training()
    detail = f"Traceback (most recent call last):\n{message}"
    said = told("failed", reason="UserCodeFailed", message=message, detail=detail)
    world.end_pod(2, 70, termination=said)
    return world


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


def checkpoint() -> World:
    world = training(checkpoint={"everySteps": 5, "url": "s3://bucket/jobs"})
    good = CheckpointState(step=10, at=START.timestamp(), bytes=1000, seconds=0.5)
    world.coordinator(checkpoint=replace(good, error="No space left on device"))
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
        lambda: user_error("KeyError: 'label'"),
        *("Failed", "UserCodeFailed", "KeyError: 'label'", "Traceback"),
        next="shardwise logs digits",
    ),
    "NaN loss": Case(
        lambda: user_error("the loss is nan at step 7; lower the learning rate"),
        *("Failed", "UserCodeFailed", "the loss is nan at step 7", "lower the learning rate"),
        next="shardwise logs digits",
    ),
    "OOM": Case(
        out_of_memory,
        *("Waiting", "OutOfMemory", "used more memory than its limit", "limits.memory"),
        next="kubectl top pod",
    ),
    "node gone": Case(
        node_gone,
        *("Waiting", "Unschedulable", "at least 2 are needed", "free or add nodes"),
        next="kubectl describe pod",
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
        *("Recovering", "Recovering", "2 of 4 workers are ready", "at least 3 are needed"),
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
        checkpoint,
        *("Running", "Training", "No space left on device", "check spec.checkpoint"),
        next="shardwise watch digits",
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
    assert case.cause in described
