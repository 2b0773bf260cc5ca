"""Lists, grids and random sweeps: what comes next, what is kept, what is gone on with."""

from __future__ import annotations

import pytest

from shardwise.sweep import RecordError, Schedule

TRAINER = {"entrypoint": "m:f", "epochs": 9, "batchSize": 8, "shards": 2}
ACCURACY = [{"metric": "accuracy", "direction": "Maximize"}]
HIDDEN = {"name": "hidden", "values": [32, 64]}
RATE = {"name": "rate", "values": ["0.1", "0.2", "0.3"]}


def sweep(*parameters, **settings):
    return {"sweep": {"parameters": list(parameters), **settings}, "objectives": ACCURACY}


def drained(schedule):
    found = []
    while (stretch := schedule.next()) is not None:
        found.append(stretch)
    return found


def test_a_list_gives_its_items_in_order():
    items = [{"name": "one", "parameters": {"hidden": 8}}, {"name": "two"}]
    schedule = Schedule({"list": items}, TRAINER)
    assert schedule.total == 2
    one, two = drained(schedule)
    assert (one.name, one.assigned, one.item) == ("one", {"hidden": 8}, items[0])
    assert (two.name, two.assigned, two.item, two.number) == ("two", {}, items[1], 1)
    assert (one.rung, one.until) == (0, None)


def test_a_grid_gives_all_at_once_and_waits_for_nothing():
    schedule = Schedule(sweep(HIDDEN, RATE), TRAINER)
    stretches = drained(schedule)
    assert [s.name for s in stretches] == [f"task-{n}" for n in range(6)]
    assert [s.assigned["hidden"] for s in stretches] == [32, 32, 32, 64, 64, 64]
    assert not schedule.exhausted
    for stretch in stretches:
        schedule.tell(stretch.number, [0.5])
    assert schedule.exhausted


def test_the_longest_task_comes_first():
    epochs = {"name": "epochs", "field": "trainer.epochs", "values": [3, 30, 10]}
    stretches = drained(Schedule(sweep(HIDDEN, epochs), TRAINER))
    assert [s.assigned["epochs"] for s in stretches] == [30, 30, 10, 10, 3, 3]
    assert [s.trial for s in stretches] == [1, 4, 2, 5, 0, 3]
    assert [s.number for s in stretches] == list(range(6))


def test_with_steps_the_largest_batch_is_the_longest():
    batch = {"name": "batch", "field": "trainer.batchSize", "values": [16, 64]}
    steps = {**TRAINER, "epochs": None, "steps": 100}
    assert [s.trial for s in drained(Schedule(sweep(batch), steps))] == [1, 0]
    # An epoch has the same samples, however they are cut.
    assert [s.trial for s in drained(Schedule(sweep(batch), TRAINER))] == [0, 1]


@pytest.mark.parametrize("algorithm", ["Grid", "Random"])
def test_goes_on_from_its_record(algorithm):
    tasks = sweep(HIDDEN, RATE, algorithm=algorithm) | {"maxTasks": 6}
    first = Schedule(tasks, TRAINER)
    begun = [first.next() for _ in range(4)]
    first.tell(2, [0.25])
    first.tell(0, None)
    second, open_ones = Schedule.restore(tasks, TRAINER, first.record())
    assert open_ones == (begun[1], begun[3])
    assert (second.values(2), second.values(0)) == ((0.25,), None)
    assert [second.state(n) for n in range(5)] == [
        "Failed",
        "Running",
        "Succeeded",
        "Running",
        "Pending",
    ]
    assert drained(second) == drained(first)


def test_telling_twice_changes_nothing():
    schedule = Schedule(sweep(HIDDEN), TRAINER)
    drained(schedule)
    schedule.tell(0, [0.5])
    record = schedule.record()
    schedule.tell(0, [0.75])
    schedule.tell(0, None)
    assert (schedule.values(0), schedule.record()) == ((0.5,), record)


def test_what_is_told_must_fit():
    schedule = Schedule(sweep(HIDDEN), TRAINER)
    with pytest.raises(ValueError, match="stretch 0 was not begun; 0 were"):
        schedule.tell(0, [1.0])
    schedule.next()
    with pytest.raises(ValueError, match="stretch 0 has 2 values for 1 objectives"):
        schedule.tell(0, [1.0, 2.0])


def test_a_nan_is_a_failure():
    schedule = Schedule(sweep(HIDDEN), TRAINER)
    schedule.next()
    schedule.tell(0, [float("nan")])
    assert schedule.state(0) == "Failed"


def test_a_grid_beyond_max_tasks_is_refused_without_counting_it_all():
    huge = {"name": "n", "range": {"type": "Int", "min": 1, "max": 2**40}}
    with pytest.raises(ValueError, match=r"more than maxTasks \(10000\)"):
        Schedule(sweep(huge), TRAINER)


def test_a_record_of_another_spec_is_refused():
    schedule = Schedule(sweep(HIDDEN, RATE), TRAINER)
    drained(schedule)
    with pytest.raises(RecordError, match="has 6 stretches, and the spec gives 2"):
        Schedule.restore(sweep(HIDDEN), TRAINER, schedule.record())
    with pytest.raises(RecordError, match="0 objectives of 32 bits"):
        Schedule.restore(sweep(HIDDEN, RATE), TRAINER, Schedule({"list": []}, TRAINER).record())
    for broken in ("", "!", schedule.record()[:-8]):
        with pytest.raises(RecordError, match="damaged"):
            Schedule.restore(sweep(HIDDEN, RATE), TRAINER, broken)
