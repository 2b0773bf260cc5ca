"""A schedule that decides beside what is told to it: the same as one that does all in turn."""

from __future__ import annotations

import random
import threading

import pytest
from playing import HIDDEN, RATE, TRAINER, run, sweep

from shardwise.sweep import AbandonedError, Schedule

TPE = sweep(RATE, HIDDEN, algorithm="TPE", maxTasks=24, parallelism=3)


def quality(stretch):
    return [round(1000 * (1 - abs(float(stretch.assigned["rate"]) - 0.1))) / 1024]


def test_what_is_undecided():
    schedule = Schedule(TPE, TRAINER)
    assert schedule.undecided
    schedule.decide()
    assert not schedule.undecided
    first = schedule.next()
    assert schedule.undecided, "there is room for two more"
    for _ in range(2):
        schedule.decide()
        assert schedule.next() is not None
    schedule.decide()
    assert not schedule.undecided, "it waits for a result"
    assert schedule.next() is None
    schedule.tell(0, quality(first))
    assert schedule.undecided


@pytest.mark.parametrize("algorithm", ["Grid", "Random"])
def test_what_needs_no_results_is_always_decided(algorithm):
    schedule = Schedule(sweep(HIDDEN, algorithm=algorithm, maxTasks=3), TRAINER)
    while not schedule.undecided and schedule.next() is not None:
        pass
    assert (schedule.undecided, schedule.exhausted) == (False, False)


@pytest.mark.parametrize("seed", range(3))
def test_decisions_in_a_thread_beside_what_is_told(seed):
    """Results come at any time while it decides, and the schedule is written down meanwhile."""
    _, expected = run(TPE, quality)
    chance = random.Random(seed)
    schedule = Schedule(TPE, TRAINER)
    begun, open_ones = [], []
    while len(begun) < 24 or open_ones:
        thread = None
        if schedule.undecided:
            thread = threading.Thread(target=schedule.decide)
            thread.start()
        for _ in range(chance.randrange(3)):
            if open_ones:
                ended = open_ones.pop(chance.randrange(len(open_ones)))
                schedule.tell(ended.number, quality(ended))
                schedule.record()
        if thread is not None:
            thread.join()
        if not schedule.undecided and (stretch := schedule.next()) is not None:
            begun.append(stretch)
            open_ones.append(stretch)
    assert begun == expected
    assert schedule.exhausted


def test_a_restoring_that_is_abandoned():
    schedule, _ = run(TPE, quality)
    asked = []

    def abandoned():
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(AbandonedError):
        Schedule.restore(TPE, TRAINER, schedule.record(), abandoned)
    assert len(asked) == 6
