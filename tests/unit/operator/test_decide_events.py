"""The Events of a job that trains: what beside its state a person would want to know."""

from __future__ import annotations

from dataclasses import replace

from operator_world import START, World

from shardwise.coordinator.report import CheckpointState, Loss

GOOD = CheckpointState(step=10, at=START.timestamp(), bytes=1000, seconds=0.5)


def told(world):
    """The Events of the next reconciles, until nothing is new."""
    found = []
    for _ in range(8):
        before = dict(world.status)
        decision = world.step()
        found += world.events(decision)
        if not decision.actions and world.status == before:
            return found
    raise AssertionError("no fixpoint")


def training(**spec):
    world = World(**spec)
    world.train()
    return world


def reasons(events):
    return [reason for reason, _ in events]


def test_a_checkpoint_that_fails_and_one_that_follows():
    world = training(checkpoint={"everySteps": 5, "url": "s3://bucket/jobs"})
    world.coordinator(checkpoint=GOOD)
    assert reasons(told(world)) == ["CheckpointWritten"]
    world.coordinator(checkpoint=replace(GOOD, step=15))
    assert told(world) == []
    world.coordinator(checkpoint=replace(GOOD, error="No space left on device"))
    ((reason, message),) = told(world)
    assert reason == "CheckpointFailed"
    assert "No space left on device" in message
    world.coordinator(checkpoint=replace(GOOD, step=20))
    assert reasons(told(world)) == ["CheckpointWritten"]


def test_a_scaling_and_what_stands_in_its_way():
    world = training(workers={"replicas": 2, "max": 8})
    world.raw["spec"]["workers"]["replicas"] = 4
    world.raw["metadata"]["generation"] = 2
    assert told(world) == [("Scaled", "4 workers are asked for, where 2 were")]
    world.pod(2, unschedulable="0/2 nodes are available: 2 Insufficient cpu.")
    ((reason, message),) = told(world)
    assert reason == "Unschedulable"
    assert message.startswith("2 of 4 workers train; 1 of 4 pods find no node")
    world.pod(2, unschedulable="")
    world.connect(generation=2)
    assert told(world) == [("AllWorkers", "all 4 workers train")]


def test_a_spec_that_is_not_in_force():
    world = training(workers={"replicas": 2, "max": 4})
    world.raw["spec"]["workers"]["replicas"] = 6
    world.raw["metadata"]["generation"] = 2
    assert reasons(told(world)) == ["ReplicasClamped", "Scaled"]
    world.raw["spec"]["workers"]["replicas"] = 4
    world.raw["spec"]["trainer"]["seed"] = 9
    world.raw["metadata"]["generation"] = 3
    assert reasons(told(world)) == ["ImmutableFieldChanged"]


def test_a_group_that_is_small_for_a_moment_is_no_news_of_its_own():
    world = training()
    world.delete_pod("digits-3")
    assert reasons(told(world)) == []
    world.connect(generation=2)
    assert reasons(told(world)) == ["AllWorkers"]


def test_a_recovery_is_told_once_and_when_it_is_over():
    world = training()

    def lost(step, **more):
        return Loss(
            worker="digits-2",
            index=2,
            cause="Killed",
            at=START.timestamp() + step,
            step=step,
            **more,
        )

    first = lost(7, seconds=0.5)
    world.coordinator(recoveries={"Killed": 1}, losses=(first,))
    assert told(world) == [
        ("Recovered", "training went on 0.500 s after digits-2 was lost (Killed) at step 7")
    ]
    # The next one has begun: it counts, and what was told before is not told again.
    world.coordinator(recoveries={"Killed": 2}, losses=(first, lost(9)))
    assert told(world) == []
    world.coordinator(losses=(first, lost(9, seconds=0.25)))
    assert told(world) == [
        ("Recovered", "training went on 0.250 s after digits-2 was lost (Killed) at step 9")
    ]
