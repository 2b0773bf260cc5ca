"""How much training early stopping is expected to come to."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from playing import RATE, TRAINER, run, sweep

from shardwise.sweep import Schedule
from shardwise.sweep.effort import Effort, Marks

MARKS = Marks((2, 6), 18, 3, 27)


def test_by_hand():
    # 27 to 2, 9 of them 4 further, 3 of those 12 further.
    assert MARKS.effort(Counter(), Counter()) == Effort(0, 54 + 36 + 36, 18)
    begun, ended = Counter({0: 9, 1: 2}), Counter({0: 7, 1: 1})
    assert MARKS.effort(begun, ended) == Effort(7 * 2 + 4, 126, 18)
    # More went on than one in three, as where each is better than those before it.
    assert MARKS.effort(Counter({0: 27, 1: 12}), Counter()) == Effort(0, 54 + 48 + 36, 18)
    # Too few for anyone to be promoted: the best one is trained to its end all the same.
    assert Marks((2,), 18, 4, 3).effort(Counter(), Counter()) == Effort(0, 3 * 2 + 16, 18)


def test_what_a_stretch_under_way_has_added():
    assert MARKS.reached(1, 5 / 18) == pytest.approx(3)
    assert MARKS.reached(1, 0) == 0, "it has not found its state yet"
    assert MARKS.reached(1, 1) == 4
    assert MARKS.reached(2, 0.5) == pytest.approx(3)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_expected_comes_true(seed):
    """At random, between the first and the last stretch the whole changes by little."""
    chance = random.Random(seed)
    stopping = {"rungs": [1, 3], "reductionFactor": 3}
    tasks = sweep(RATE, algorithm="Random", maxTasks=81, earlyStopping=stopping, parallelism=4)
    expected = Schedule(tasks, TRAINER).effort
    schedule, begun = run(tasks, lambda _: [chance.random()])
    effort = schedule.effort
    assert effort is not None and expected is not None
    added = {0: 1, 1: 2, 2: 6}
    assert effort.done == sum(added[stretch.rung] for stretch in begun)
    assert effort.done <= effort.whole <= effort.done * 1.1
    assert effort.done == pytest.approx(expected.whole, rel=0.3)


def test_a_schedule_that_is_restored_has_the_same():
    stopping = {"rungs": [1, 3], "reductionFactor": 3}
    tasks = sweep(RATE, algorithm="Random", maxTasks=9, earlyStopping=stopping)
    schedule = Schedule(tasks, TRAINER)
    for number in range(3):
        schedule.next()
        schedule.tell(number, [0.5])
    schedule.tell(1, [0.1])
    again, _ = Schedule.restore(tasks, TRAINER, schedule.record())
    assert again.effort == schedule.effort == Effort(3, 9 + 6 + 6, 9)


def test_without_early_stopping_there_is_none():
    schedule = Schedule(sweep(RATE, algorithm="Random", maxTasks=9), TRAINER)
    stretch = schedule.next()
    assert stretch is not None
    assert (schedule.effort, schedule.reached(stretch, 0.5)) == (None, 0.0)
