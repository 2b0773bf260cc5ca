"""Which specs are taken, and what becomes of one that is changed after the start."""

from __future__ import annotations

from datetime import timedelta

import pytest
from operator_world import SHA, World, manifest

from shardwise_operator.actions import OpenTask
from shardwise_operator.observe import ConfigMapView


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
