"""Records: what goes in comes out, and it is never longer than it may be."""

from __future__ import annotations

import math
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import HIDDEN, RATE, TRAINER, patiently, sweep

from shardwise.sweep import RecordError, Schedule
from shardwise.sweep.record import LENGTH, Precision, Record, most_stretches

FOUR = [{"metric": f"m{n}", "direction": "Maximize"} for n in range(4)]


def hardest(chance):
    """A value that cannot be made smaller: any of float32's finite bit patterns."""
    while True:
        (value,) = struct.unpack("<f", chance.randbytes(4))
        if math.isfinite(value):
            return value


@pytest.mark.parametrize(
    ("tasks", "least_bits"),
    [
        (sweep(RATE, algorithm="Random", maxTasks=10_000), 32),
        (sweep(RATE, algorithm="Random", maxTasks=10_000, objectives=FOUR[:2]), 18),
        (sweep(RATE, algorithm="Random", maxTasks=5_000, objectives=FOUR), 18),
        (sweep(RATE, algorithm="Random", maxTasks=10_000, objectives=[]), 32),
    ],
)
def test_ten_thousand_tasks_stay_below_64_kib(tasks, least_bits):
    chance = random.Random(0)
    schedule = Schedule(tasks, TRAINER)
    while (stretch := schedule.next()) is not None:
        values = [hardest(chance) for _ in tasks["objectives"]]
        schedule.tell(stretch.number, values if chance.random() < 0.97 else None)
        if len(values):
            kept = schedule.values(stretch.trial)
            if kept is not None and least_bits == 32:
                assert list(kept) == values
    record = schedule.record()
    assert len(record) <= LENGTH
    again, open_ones = Schedule.restore(tasks, TRAINER, record)
    assert (again.exhausted, open_ones, again.record()) == (True, (), record)
    assert [again.values(n) for n in range(again.total)] == [
        schedule.values(n) for n in range(schedule.total)
    ]


@pytest.mark.parametrize("improving", [False, True])
def test_early_stopping_of_ten_thousand_tasks_stays_below_64_kib(improving):
    """Where each trial is better than all before it, each would be promoted at once."""
    stopping = {"rungs": [1, 3], "reductionFactor": 3}
    tasks = sweep(RATE, algorithm="Random", maxTasks=10_000, earlyStopping=stopping)
    chance = random.Random(1)
    schedule = Schedule(tasks, TRAINER)
    trials = set()
    begun = 0
    while (stretch := schedule.next()) is not None:
        begun += 1
        trials.add(stretch.trial)
        noise = hardest(chance)
        better = float(stretch.trial + 1) * (1 + 1e-4 * chance.random())
        schedule.tell(stretch.number, [better if improving else noise])
    assert schedule.exhausted
    assert len(trials) == 10_000
    assert 14_443 <= begun <= most_stretches(10_000, 2, 3)
    assert len(schedule.record()) <= LENGTH


@pytest.mark.parametrize(
    ("trials", "rungs", "factor", "expected"),
    [
        (1000, 2, 3, 3000),  # All that there can be.
        (10_000, 2, 3, 18_055),  # A quarter more than 10,000 + 3,333 + 1,111.
        (10_000, 16, 2, 21_812),  # What fits with 16 bits each.
    ],
)
def test_the_most_stretches(trials, rungs, factor, expected):
    assert most_stretches(trials, rungs, factor) == expected
    assert Precision.of(expected, 1).bits >= 16


def test_more_values_than_a_record_can_hold_are_refused():
    with pytest.raises(ValueError, match="5001 tasks with 4 objectives are more than 20000 values"):
        Schedule(sweep(RATE, algorithm="Random", maxTasks=5001, objectives=FOUR), TRAINER)


floats = st.floats(width=32, allow_nan=False)
results = st.dictionaries(st.integers(0, 60), st.none() | st.tuples(floats, floats))


@patiently
@given(results, st.integers(61, 70), st.integers(16, 32), st.integers(0, 2**32 - 1))
def test_what_goes_in_comes_out(found, begun, bits, check):
    precision = Precision(bits)
    rounded = {
        number: None if values is None else tuple(map(precision.round, values))
        for number, values in found.items()
    }
    record = Record(begun, rounded, check)
    assert Record.decode(record.encode(precision, 2), precision, 2) == record


@patiently
@given(st.floats(allow_nan=False), st.integers(16, 32))
def test_rounding_is_to_the_nearest_and_done_once(value, bits):
    precision = Precision(bits)
    rounded = precision.round(value)
    assert precision.round(rounded) == rounded
    if math.isfinite(rounded) and abs(value) > 1e-37:
        # Half of the last bit that is kept; before that, half of float32's.
        error = 2.0 ** (8 - bits) + (2.0**-24 if bits < 32 else 0)
        assert abs(rounded - value) <= abs(value) * error
    if not math.isfinite(rounded):
        assert math.copysign(1, rounded) == math.copysign(1, value)
        assert abs(value) > 3.3e38


@patiently
@given(st.lists(st.floats(allow_nan=False, width=32), min_size=2), st.integers(16, 32))
def test_rounding_keeps_the_order(values, bits):
    precision = Precision(bits)
    rounded = [precision.round(value) for value in sorted(values)]
    assert rounded == sorted(rounded)


@patiently
@given(st.binary(max_size=200).map(lambda data: data.decode("latin-1")) | st.text(max_size=60))
def test_any_text_is_a_record_or_refused(text):
    with pytest.raises(RecordError, match="record of the tasks"):
        Record.decode(text, Precision(32), 1)


def test_a_record_that_is_cut_is_refused():
    schedule = Schedule(sweep(HIDDEN), TRAINER)
    schedule.next()
    schedule.tell(0, [0.5])
    record = schedule.record()
    for end in range(len(record)):
        with pytest.raises(RecordError):
            Schedule.restore(sweep(HIDDEN), TRAINER, record[:end])
