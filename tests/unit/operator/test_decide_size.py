"""How many workers there are: scaling, bounds, standbys."""

from __future__ import annotations

import pytest
from operator_world import World

from shardwise_operator.actions import DeletePod, ResizeTask


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
