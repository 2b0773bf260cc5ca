"""Whatever happens to workers and coordinator, the weights come out the same, and in the end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import chaos
import pytest
import split_commit

from shardwise.coordinator.protocol import Go
from shardwise.local.run import LocalRun

pytestmark = pytest.mark.timeout((7200 if chaos.NIGHTLY else 3600) if chaos.FULL else 600)

WORKERS, SEED = 4, chaos.SEED


@pytest.mark.parametrize("partition", ["none", "parameters"])
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("kill:1@50", "Killed"),
        ("kill:0@61/3", "Killed"),
        ("hang:2@50", "Unreachable"),
        ("stall:3@50", "Hung"),
        ("partition:0@50", "Unreachable"),
        ("leave:1@50", "Preempted"),
    ],
)
def test_one_fault_of_each_kind(fault, cause, partition):
    done = chaos.run(chaos.manifest(120, partition=partition), workers=WORKERS, listed=[fault])
    assert done.struck == {fault.replace("/", "-")}
    assert done.recoveries[cause] == 1, done.recoveries
    assert done.ended.report.lost_steps == 0
    assert done.hashes == chaos.undisturbed(120)


STEPS = 600
"""Of each run under many blows; there are as many runs as the blows take."""


@pytest.mark.parametrize("name", chaos.MODELS)
@pytest.mark.parametrize(
    ("blows", "full"),
    [
        (("kill",), 100),
        (("hang",), 30),
        (("crash-coordinator",), 20),
        (("kill", "kill", "kill", "hang", "crash-coordinator"), 50),
    ],
    ids=["kills", "hangs", "crashes of the coordinator", "any mix"],
)
def test_many_blows(blows, full, name, tmp_path):
    """One after the other, at random, also while the group recovers from the last one."""
    number, struck, runs = chaos.count(full), 0, 0
    dice = random.Random(SEED)

    async def strike(local: LocalRun) -> None:
        nonlocal struck
        while struck < number:
            least = dice.choice((2, 3, WORKERS, WORKERS))
            await chaos.until(
                lambda least=least: len(local.report().members) >= least, f"{least} members"
            )
            later = chaos.step(local) + dice.randrange(1, 30)
            await chaos.until(lambda later=later: chaos.step(local) >= later, "some steps")
            await chaos.strike(local, dice.choice(blows), dice)
            struck += 1

    while struck < number:
        runs += 1
        assert runs <= 5 + number, f"{struck} blows in {runs} runs"
        url = f"file://{tmp_path}/checkpoints-{runs}"
        job = chaos.manifest(STEPS, name, checkpoint={"everySteps": 20, "url": url})
        done = chaos.run(job, workers=WORKERS, driver=strike)
        assert done.hashes == chaos.undisturbed(STEPS, name), f"seed {SEED}, run {runs}"
        print(f"{struck} blows in {runs} runs: {dict(done.recoveries)}", flush=True)


@pytest.mark.parametrize("partition", ["none", "parameters"])
def test_faults_in_the_middle_of_exchanges(partition):
    """At the n-th wait for a peer, for each of the first ones, one at a time."""
    for transfer in range(1, chaos.count(60) + 1):
        fault = f"kill:{transfer % WORKERS}@20/{transfer}"
        job = chaos.manifest(60, partition=partition)
        done = chaos.run(job, workers=WORKERS, listed=[fault])
        assert done.hashes == chaos.undisturbed(60), fault
        assert done.ended.report.lost_steps == 0


@pytest.mark.parametrize("partition", ["none", "parameters"])
def test_a_worker_hangs_while_the_others_recover(partition):
    """At the n-th wait since another has died, which is that of the new group's beginning as well
    as that of the step."""
    for transfer in range(1, chaos.count(20) + 1):
        listed = ["kill:3@20", f"stall:1@20/{transfer}"]
        done = chaos.run(chaos.manifest(200, partition=partition), workers=WORKERS, listed=listed)
        assert done.hashes == chaos.undisturbed(200), listed
        assert done.ended.report.lost_steps == 0


@pytest.mark.parametrize("saves", [False, True], ids=["without checkpoints", "with checkpoints"])
def test_the_only_holder_of_the_state_hangs_as_it_hands_it_over(saves, tmp_path):
    """What it has done since a checkpoint is lost, but not the run: it is begun anew."""
    checkpoint = {"checkpoint": {"everySteps": 7, "url": f"file://{tmp_path}/checkpoints"}}
    job = chaos.manifest(STEPS, **(checkpoint if saves else {}))
    done = chaos.run(job, workers=2, listed=["kill:0@50", "stall:1@51/1"])
    assert done.struck == {"kill:0@50", "stall:1@51-1"}
    assert done.recoveries["Hung"] == 1
    if saves:
        assert done.ended.report.lost_steps < 50, "no more than since the last one"
    else:
        assert done.ended.report.lost_steps > 0
    assert done.hashes == chaos.undisturbed(STEPS)


@pytest.mark.parametrize("name", chaos.MODELS)
def test_workers_leave_and_come_at_random(name):
    """In turn, so that no worker is asked twice before it has left. Somebody always stays, or loads
    the task and goes on with what the last ones hand over."""
    number, left, runs, preempted, joined = chaos.count(50), 0, 0, 0, 0
    steps = 240 + 40 * number if name == "digits" else 160 + 20 * number
    dice = random.Random(SEED)

    async def leave_and_come(local: LocalRun) -> None:
        nonlocal left
        asked: set[int] = set()

        async def come_again(index: int) -> None:
            await chaos.until(lambda: index not in chaos.processes(local), f"{index} leaves")
            later = chaos.step(local) + dice.randrange(20)
            await chaos.until(lambda: chaos.step(local) >= later, "some steps")
            local.add_worker(index)
            await chaos.until(lambda: index in chaos.processes(local), f"{index} comes")
            asked.discard(index)

        async with asyncio.TaskGroup() as coming:
            while left < number:
                index = left % WORKERS
                later = chaos.step(local) + dice.randrange(1, 20)

                def may_leave(index: int = index, later: int = later) -> bool:
                    stay = chaos.processes(local).keys() - asked - {index}
                    member = f"worker-{index}" in local.report().members and index not in asked
                    return bool(member and stay and chaos.step(local) >= later)

                await chaos.until(may_leave, f"{index} may leave")
                asked.add(index)
                os.kill(chaos.processes(local)[index], signal.SIGTERM)
                left += 1
                coming.create_task(come_again(index))

    while left < number:
        runs += 1
        assert runs <= 5 + number, f"{left} leaves in {runs} runs"
        done = chaos.run(chaos.manifest(steps, name), workers=WORKERS, driver=leave_and_come)
        assert done.hashes == chaos.undisturbed(steps, name), f"seed {SEED}, run {runs}"
        assert done.ended.report.lost_steps == 0
        assert "Broken" not in done.recoveries, "to leave breaks nothing"
        preempted += done.recoveries["Preempted"]
        joined += done.recoveries["Joined"]
    # The training may end before the last one asked has left, or the last ones have come again.
    assert preempted >= number - runs
    assert joined >= number - (WORKERS - 1) * runs


@pytest.mark.parametrize(
    ("name", "partition"),
    [("digits", "none"), ("digits", "parameters"), *((name, "none") for name in chaos.MODELS[1:])],
)
def test_all_workers_are_killed_again_and_again(name, partition, tmp_path):
    number = chaos.count(5) if partition == "none" else 2
    every = 100 if name == "digits" else 40
    steps = (number + 1) * every + 20
    checkpoint = {"everySteps": 10, "keep": 2, "url": f"file://{tmp_path}/checkpoints"}

    async def kill_all(local: LocalRun) -> None:
        for blow in range(1, number + 1):
            await chaos.until(lambda blow=blow: chaos.step(local) >= blow * every, "steps")
            for pid in chaos.processes(local).values():
                os.kill(pid, signal.SIGKILL)

    job = chaos.manifest(steps, name, partition, checkpoint=checkpoint)
    done = chaos.run(job, workers=WORKERS, driver=kill_all)
    assert done.hashes == chaos.undisturbed(steps, name)
    assert done.recoveries["Killed"] >= WORKERS * number - number
    assert done.ended.report.lost_steps < 60 * number, "they resumed from checkpoints"


@pytest.mark.parametrize("name", chaos.MODELS)
def test_two_joins_back_to_back_and_a_joiner_that_is_killed(name):
    steps = 1200 if name == "digits" else 300

    async def join(local: LocalRun) -> None:
        await chaos.until(lambda: chaos.step(local) >= 40, "steps")
        local.add_worker(4)
        local.add_worker(5)
        for index in (4, 5):
            await chaos.until(lambda index=index: index in chaos.processes(local), "a joiner")
            os.kill(chaos.processes(local)[index], signal.SIGKILL)
        local.coordinator.resize_task("local", 6, 1)
        await chaos.until(lambda: len(local.report().members) == 6, "six members")

    done = chaos.run(chaos.manifest(steps, name), workers=WORKERS, driver=join)
    assert done.hashes == chaos.undisturbed(steps, name)
    # Not the last report's members: those that have gone home are in it no more.
    assert done.result["workers"] == 6, "all six were there at the end"


@pytest.mark.parametrize("partition", ["none", "parameters"])
@pytest.mark.parametrize("name", chaos.MODELS)
def test_a_split_commit(name, partition, monkeypatch, tmp_path):
    """One member has committed a step when another dies, and the rest has not."""
    gos: list[tuple[int, ...]] = []

    def recorded(**fields: Any) -> Go:
        gos.append(fields["steps"])
        return Go(**fields)

    monkeypatch.setattr("shardwise.coordinator.generations.Go", recorded)
    monkeypatch.setenv(split_commit.MARKER, str(tmp_path / "marker"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    job = chaos.manifest(120, name, partition)
    job["spec"]["trainer"]["entrypoint"] = f"split_commit:{name.replace('-', '_')}_task"
    done = chaos.run(job, workers=WORKERS)
    step = split_commit.STEP
    assert (step, step, step + 1) in [tuple(sorted(go)) for go in gos], gos
    assert done.hashes == chaos.undisturbed(120, name)
    assert done.ended.report.lost_steps == 0


@pytest.mark.skipif(not chaos.FULL, reason="part of `make chaos`")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fashion_mnist_through_a_mix_of_faults(seed):
    counts = {"kill": 20, "hang": 5, "partition": 5, "stall": 3, "crash-coordinator": 3}
    listed = chaos.faults(seed, steps=400, workers=WORKERS, counts=counts)
    done = chaos.run(chaos.manifest(400, "fashion-mnist"), workers=WORKERS, listed=listed)
    assert done.hashes == chaos.undisturbed(400, "fashion-mnist"), (
        f"seed {seed}: {' '.join(listed)}"
    )
