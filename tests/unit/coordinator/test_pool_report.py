"""What is told of a pool: its rows, and the time that is left."""

from __future__ import annotations

import random

import pytest

from shardwise.coordinator.pool import Pool

from .pool_world import World, assignment, grid, reopened, report, tasks_of, world


def test_a_failed_task_shows_however_many_run() -> None:
    found = world(grid(60, maxRetries=0), 1)
    found.fail("p/task-0", "UserCodeFailed", "ValueError: no")
    for number in range(1, 8):
        found.end(f"p/task-{number}")
    found.come(*range(1, 40))
    states = [row.state for row in tasks_of(found).rows]
    assert (len(found.open), states[:15], len(states)) == (40, ["Running"] * 15, 20)
    ended = [(row.name, row.message) for row in tasks_of(found).rows[15:]]
    assert ended == [
        ("task-0", "ValueError: no"),
        *((f"task-{number}", "") for number in (7, 6, 5, 4)),
    ]


def test_those_that_run_have_the_room_that_no_other_needs() -> None:
    found = world(grid(60), 40)
    assert [row.state for row in tasks_of(found).rows] == ["Running"] * 20
    found.end("p/task-3")
    assert [row.state for row in tasks_of(found).rows] == ["Running"] * 19 + ["Succeeded"]


@pytest.mark.parametrize("seed", range(4))
def test_the_time_that_early_stopping_leaves(seed: int) -> None:
    """A stretch takes ten seconds an epoch. Most tasks stop at a rung, and only counting them as
    if all were trained to the end it would seem to take for ever."""
    chance = random.Random(seed)
    stopping = {"rungs": [1, 3], "reductionFactor": 3}
    found = World(Pool(assignment(grid(27, sweep={"earlyStopping": stopping}), 1), 0.0))
    found.come(0)
    told: list[tuple[float, float]] = []
    while "p/+collect" not in found.open:
        (task,) = found.open
        stretch = found.open[task].stretch
        assert stretch is not None
        found.now += {1: 10.0, 3: 20.0, None: 60.0}[stretch.until]
        found.end(task, chance.random())
        progress = report(found).progress
        assert progress is not None and progress.eta_seconds is not None
        assert 0 < progress.step <= progress.total_steps
        told.append((found.now, progress.eta_seconds))
    whole = found.now
    # 27 + 9 * 2 + 3 * 6 epochs, and what is promoted beyond that.
    assert 630 <= whole <= 900
    assert max(abs(left - (whole - now)) for now, left in told) <= whole - 630 + 1e-6
    assert told[-1][1] == 0


def test_the_time_left_goes_on_from_what_a_new_coordinator_finds() -> None:
    stopping = {"rungs": [3], "reductionFactor": 2}
    tasks = grid(4, sweep={"earlyStopping": stopping}, parallelism=1)
    found = world(tasks, 1)
    (task,) = found.open
    found.now = 30.0
    found.end(task)
    found = reopened(found, tasks, 1)
    found.now = 30.0
    found.come(0)
    progress = report(found).progress
    assert progress is None or progress.eta_seconds is None, "nothing was seen done yet"
    (task,) = found.open
    found.now = 60.0
    found.end(task)
    progress = report(found).progress
    # 4 * 3 + 2 * 6 epochs, 6 of them done, 3 in 30 seconds.
    assert progress is not None
    assert progress.eta_seconds == pytest.approx(180.0)
