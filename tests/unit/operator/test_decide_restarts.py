"""The restart budget: what counts, what waits, what it ends with, and that nothing counts twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from operator_world import World, told

from shardwise.coordinator.report import Loss
from shardwise_operator.actions import DeletePod
from shardwise_operator.decide import decide
from shardwise_operator.decide.restarts import backoff


def deleted(decision):
    return [action.name for action in decision.actions if isinstance(action, DeletePod)]


def test_a_failure_is_noted_before_its_pod_is_deleted():
    world = World()
    world.train()
    world.end_pod(2, 1)
    first = world.step()
    assert deleted(first) == []
    assert world.status["restarts"]["total"] == 1
    assert world.status["restarts"]["recent"][0]["uid"] == world.pods["digits-2"].uid
    assert deleted(world.step()) == ["digits-2"]
    world.settle()
    assert world.status["restarts"]["total"] == 1


@pytest.mark.parametrize("killed_after", range(6))
def test_a_failure_counts_once_wherever_the_operator_is_killed(killed_after):
    world = World()
    world.train()
    world.end_pod(2, 1)
    for _ in range(4):
        decision = decide(world.observed())
        written = False
        for action in decision.actions:
            if killed_after == 0:
                break
            world.apply(action)
            killed_after -= 1
        else:
            if killed_after != 0:
                world.write(decision)
                killed_after -= 1
                written = True
        if not written and killed_after == 0:
            world.restart_operator()
            break
    world.settle()
    assert world.status["restarts"]["total"] == 1
    assert len(world.pods) == 4


def test_the_waits_grow_while_no_step_is_done_and_not_for_ever():
    waits = [backoff(n).total_seconds() for n in range(10)]
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(10**6) == timedelta(seconds=60)


def test_a_worker_that_fails_again_without_a_step_in_between_is_waited_with():
    world = World()
    world.train()
    world.end_pod(2, 1)
    world.settle()
    world.run_pods()
    world.end_pod(2, 1)
    decision = world.settle()
    assert world.status["restarts"]["withoutProgress"] == 2
    assert decision.requeue_after == timedelta(seconds=1)
    assert world.pods["digits-2"].failed
    world.pass_time(1)
    world.settle()
    assert not world.pods["digits-2"].failed
    world.connect(2, step=6)
    world.end_pod(2, 1)
    world.settle()
    assert world.status["restarts"]["withoutProgress"] == 1
    assert not world.pods["digits-2"].failed


def test_a_spent_budget_fails_the_job_with_the_numbers():
    world = World(restartPolicy={"maxRestarts": 1, "windowSeconds": 100})
    world.train()
    world.end_pod(1, 137, exit_reason="OOMKilled")
    world.settle()
    assert world.status["state"] == "Running"
    world.run_pods()
    world.end_pod(1, 137, exit_reason="OOMKilled")
    world.settle()
    assert world.status["reason"] == "RestartBudgetExceeded"
    assert "2 failures within 100 s" in world.status["message"]
    assert "maxRestarts (1)" in world.status["message"]
    assert "limits.memory" in world.status["message"]
    assert world.status["lastFailure"]["pod"] == "digits-1"
    assert set(world.pods) == {"digits-1"}


def test_the_window_slides():
    world = World(restartPolicy={"maxRestarts": 1, "windowSeconds": 100})
    world.train()
    world.end_pod(1, 1)
    world.settle()
    world.pass_time(100)
    world.connect(2, step=9)
    world.end_pod(1, 1)
    world.settle()
    assert world.status["state"] == "Running"
    restarts = world.status["restarts"]
    assert (restarts["total"], restarts["inWindow"], len(restarts["recent"])) == (2, 1, 1)


def test_a_lowered_budget_ends_nothing_by_itself():
    world = World(restartPolicy={"maxRestarts": 5})
    world.train()
    world.end_pod(1, 1)
    world.settle()
    world.raw["spec"]["restartPolicy"]["maxRestarts"] = 0
    world.settle()
    assert world.status["state"] == "Running"


def test_crashes_at_the_start_spend_the_budget_too():
    world = World(workers={"replicas": 2}, restartPolicy={"maxRestarts": 4})
    world.settle()
    for _ in range(3):
        world.run_pods()
        world.end_pod(0, 1, termination="No module named shardwise")
        world.end_pod(1, 1, termination="No module named shardwise")
        world.settle()
        if world.status["state"] == "Failed":
            break
        assert world.status["state"] in ("Starting", "Waiting", "Pending")
        world.pass_time(60)
        world.settle()
    assert world.status["reason"] == "RestartBudgetExceeded"
    assert world.status["lastFailure"]["logTail"] == "No module named shardwise"


def test_what_is_waited_with_is_told_with_the_count():
    world = World(workers={"replicas": 1})
    world.settle()
    for _ in range(2):
        world.run_pods()
        world.end_pod(0, 1)
        world.settle()
    assert (world.status["state"], world.status["reason"]) == ("Waiting", "WorkerLost")
    assert "it is replaced (restart 2 of 10)" in world.status["message"]


def test_a_refused_worker_degrades_the_job_and_is_tried_again_much_later():
    world = World()
    world.train()
    said = told("failed", reason="RefusedWorker", message="its torch is 2.9, the others' 2.8")
    world.end_pod(3, 72, termination=said)
    decision = world.settle()
    assert world.status["state"] == "Running"
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "RefusedWorker")
    assert "torch is 2.9" in degraded["message"]
    assert decision.requeue_after == timedelta(seconds=60)
    assert world.pods["digits-3"].failed
    world.pass_time(60)
    world.settle()
    assert world.created == [0, 1, 2, 3, 3]
    assert "restarts" not in world.status


def test_a_worker_that_left_is_replaced_without_a_word_of_failure():
    world = World()
    world.train()
    world.end_pod(3, 0, termination=told("left", message="asked to"))
    world.settle()
    world.pass_time(5)
    world.settle()
    assert world.created == [0, 1, 2, 3, 3]
    assert "lastFailure" not in world.status
    assert "restarts" not in world.status


def test_a_worker_that_ended_well_waits_for_the_result():
    world = World()
    world.train()
    world.end_pod(1, 0, termination=told("succeeded", result=None))
    world.settle()
    assert world.pods["digits-1"].ended
    world.pass_time(30)  # The pod with the result was deleted: what is lost is made again.
    world.settle()
    assert world.created == [0, 1, 2, 3, 1]
    assert world.status["restarts"]["total"] == 1


def test_a_failed_worker_gets_an_event():
    world = World()
    world.train()
    world.end_pod(2, 137, exit_reason="OOMKilled")
    ((reason, message),) = [e for e in world.events(world.step()) if e[0] == "OutOfMemory"]
    assert "digits-2" in message
    assert reason == "OutOfMemory"


def crashes(world, times, step=7, cause="Killed"):
    """The worker of index 2 was lost this often, each time in the same pod."""
    losses = tuple(
        Loss(worker="digits-2", index=2, cause=cause, at=world.now.timestamp() + n, step=step)
        for n in range(1, times + 1)
    )
    world.coordinator(losses=losses)


def test_a_worker_that_crashes_in_place_without_end_is_replaced_and_counted():
    world = World()
    world.train()
    crashes(world, 4)
    world.settle()
    assert "restarts" not in world.status
    crashes(world, 5)
    world.pass_time(10)
    world.settle()
    assert world.created == [0, 1, 2, 3, 2]
    assert world.status["restarts"]["total"] == 1
    assert "crashed 5 times in a row at step 7" in world.status["lastFailure"]["message"]
    assert world.settle().actions == ()


def test_crashes_with_steps_in_between_are_recoveries_and_no_more():
    world = World()
    world.train()
    crashes(world, 5)
    assert world.report is not None
    later = replace(world.report.losses[0], step=8)
    world.coordinator(losses=(*world.report.losses, later))
    world.settle()
    assert "restarts" not in world.status
