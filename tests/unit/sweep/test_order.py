"""The virtual schedule: by hand, and the same whatever a real pool does."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import HIDDEN, MOMENTUM, RATE, TRAINER, patiently, play, run, states, sweep

from shardwise.sweep import Schedule

# Trained for 9 epochs; compared after 1 and after 3, where one of three goes on.
STOPPING = {"rungs": [1, 3], "reductionFactor": 3}
NINE = {"name": "x", "values": list(range(9))}


def nine(**settings):
    """Nine trials that begin in order."""
    settings = {"algorithm": "Random", "maxTasks": 9, "earlyStopping": STOPPING} | settings
    return sweep(NINE, **settings)


def from_table(table):
    """The objective that a table has for (trial, epochs)."""
    return lambda stretch: [table[stretch.trial, stretch.until or 9]]


def test_asha_by_hand_one_at_a_time():
    # After 1 epoch:      0    1    2    3    4    5     6    7     8
    after_one = dict(enumerate([0.5, 0.6, 0.4, 0.8, 0.3, 0.65, 0.1, 0.62, 0.2]))
    after_three = {1: 0.7, 3: 0.85, 5: 0.75, 7: 0.95}
    table = {(trial, 1): value for trial, value in after_one.items()}
    table |= {(trial, 3): value for trial, value in after_three.items()}
    table |= {(3, 9): 0.9, (7, 9): 0.99}
    tasks = nine(parallelism=1)
    schedule, begun = run(tasks, from_table(table))
    assert [(stretch.trial, stretch.rung, stretch.until) for stretch in begun] == [
        (0, 0, 1),
        (1, 0, 1),
        (2, 0, 1),  # Three results: the best one, 1, is the top third.
        (1, 1, 3),
        (3, 0, 1),  # Four results, one in the top third: now that is 3.
        (3, 1, 3),  # Two results at the second rung: none is promoted.
        (4, 0, 1),
        (5, 0, 1),  # Six results: 3 and 5 are the top third.
        (5, 1, 3),  # Three at the second rung: 0.7, 0.85, 0.75.
        (3, 2, None),
        (6, 0, 1),
        (7, 0, 1),  # Eight: still two, 3 and 5.
        (8, 0, 1),  # Nine: 3, 5 and 7.
        (7, 1, 3),  # Four at the second rung, one in the top third: now that is 7.
        (7, 2, None),
    ]
    assert states(schedule) == [
        *("Stopped", "Stopped", "Stopped", "Succeeded", "Stopped"),
        *("Stopped", "Stopped", "Succeeded", "Stopped"),
    ]
    assert schedule.values(7) == (pytest.approx(0.99),)
    assert schedule.values(5) == (0.75,)


def test_asha_by_hand_two_at_a_time():
    """Virtual time: a stretch takes as long as the epochs that it adds."""
    schedule = Schedule(nine(parallelism=2), TRAINER)

    def begins():
        stretch = schedule.next()
        return None if stretch is None else (stretch.number, stretch.trial, stretch.until)

    # From 0 to 1: trials 0 and 1.
    assert [begins(), begins(), begins()] == [(0, 0, 1), (1, 1, 1), None]
    # The second one's result is there first; what is next waits for the first's all the same.
    schedule.tell(1, [0.6])
    assert begins() is None
    schedule.tell(0, [0.5])
    # From 1 to 2: trials 2 and 3.
    assert [begins(), begins(), begins()] == [(2, 2, 1), (3, 3, 1), None]
    schedule.tell(2, [0.4])
    # At 2, three results: trial 1 goes on, from 2 to 4.
    assert [begins(), begins()] == [(4, 1, 3), None]
    schedule.tell(3, [0.3])
    # From 2 to 3: trial 4. From 3 to 4: trial 5.
    assert [begins(), begins()] == [(5, 4, 1), None]
    schedule.tell(5, [0.2])
    assert [begins(), begins()] == [(6, 5, 1), None]
    # Two end at 4; the one begun first counts first, and what it leads to begins before the other.
    schedule.tell(6, [0.7])
    assert begins() is None
    schedule.tell(4, [0.65])
    # With trial 5's result there are six: 5 and 1 are the top third.
    assert [begins(), begins(), begins()] == [(7, 6, 1), (8, 5, 3), None]


def test_a_failed_stretch_is_never_promoted():
    tasks = nine(parallelism=1)

    def objective(stretch):
        return None if stretch.trial in (8, 7) or stretch.until is None else [float(stretch.trial)]

    schedule, begun = run(tasks, objective)
    assert {stretch.trial for stretch in begun if stretch.rung} == set(range(7))
    # Each of those that came to the end failed there, and so the next best one was tried.
    ended = {stretch.trial for stretch in begun if stretch.until is None}
    assert ended == set(range(7))
    assert states(schedule) == ["Failed"] * 9


def test_a_sweep_of_fewer_trials_than_the_factor_still_trains_one():
    tasks = nine(maxTasks=2, parallelism=2)
    schedule = Schedule(tasks, TRAINER)
    schedule.next()
    schedule.next()
    schedule.tell(0, [0.1])
    # It may yet be the one, if the other fails.
    assert states(schedule) == ["Waiting", "Running"]
    schedule.tell(1, [0.2])
    assert states(schedule) == ["Waiting", "Waiting"]
    going_on = schedule.next()
    assert (going_on.trial, going_on.until) == (1, 3)
    schedule.tell(2, None)
    rescued = schedule.next()
    assert (rescued.trial, rescued.until) == (0, 3)
    schedule.tell(3, [0.1])
    last = schedule.next()
    assert (last.trial, last.until) == (0, None)
    schedule.tell(4, [0.1])
    assert schedule.exhausted
    assert states(schedule) == ["Succeeded", "Failed"]


def test_all_failed():
    schedule, begun = run(nine(parallelism=2), lambda stretch: None)
    assert len(begun) == 9
    assert states(schedule) == ["Failed"] * 9


def test_a_grid_is_mixed_where_early_stopping_compares():
    """In the manifest's order each trial may be better than its neighbour before, and so go on."""
    values = {"name": "x", "values": list(range(60))}

    def count(tasks):
        schedule, begun = run(tasks, lambda s: [float(s.assigned["x"])])
        new = [stretch.trial for stretch in begun if not stretch.rung]
        assert sorted(new) == list(range(60))
        assert schedule.assigned(7) == {"x": 7}
        return new, len(begun)

    first, stretches = count(sweep(values, earlyStopping=STOPPING))
    other, _ = count(sweep(values, earlyStopping=STOPPING, seed=1))
    assert len({tuple(first), tuple(other), tuple(range(60))}) == 3
    assert stretches < 60 + 2 * (20 + 6)
    # Without it, the order is the manifest's.
    assert count(sweep(values))[0] == list(range(60))


def test_steps_are_units_as_well():
    stopping = {"rungs": [10], "reductionFactor": 2}
    steps = {**TRAINER, "epochs": None, "steps": 40}
    _, begun = run(sweep(NINE, earlyStopping=stopping), lambda s: [float(s.trial)], steps)
    assert {stretch.until for stretch in begun} == {10, None}


def test_a_swept_length_counts():
    epochs = {"name": "epochs", "field": "trainer.epochs", "values": [9, 2, 2, 2, 2]}
    schedule = Schedule(sweep(epochs, HIDDEN, algorithm="TPE", maxTasks=12, parallelism=2), TRAINER)
    lengths = []
    for _ in range(2):
        lengths.append(schedule.next().assigned["epochs"])
    # The next one begins when the shorter one's result is there.
    shorter = lengths.index(min(lengths))
    if lengths[0] != lengths[1]:
        schedule.tell(1 - shorter, [0.5])
        assert schedule.next() is None
    schedule.tell(shorter, [0.5])
    assert schedule.next() is not None


def test_rungs_beyond_the_shortest_task_are_refused():
    with pytest.raises(
        ValueError, match=r"earlyStopping\.rungs has 3, and the shortest task has 3"
    ):
        Schedule(sweep(NINE, earlyStopping=STOPPING), {**TRAINER, "epochs": 3})
    epochs = {"name": "e", "field": "trainer.epochs", "values": [9, 2]}
    with pytest.raises(ValueError, match="the shortest task has 2 epochs"):
        Schedule(sweep(epochs, earlyStopping=STOPPING), TRAINER)
    with pytest.raises(ValueError, match="earlyStopping needs an objective"):
        Schedule(sweep(NINE, earlyStopping=STOPPING, objectives=[]), TRAINER)


def noisy(stretch):
    """An objective of what is trained alone; some trainings fail."""
    about = f"{sorted(stretch.assigned.items())} {stretch.until}"
    digest = hashlib.sha256(about.encode()).digest()
    if digest[0] < 16:
        return None
    return [digest[1] / 255 + (stretch.until or 9) / 9]


def two(stretch):
    found = noisy(stretch)
    return None if found is None else [found[0], -float(str(stretch.assigned["rate"]))]


FRONT = [
    {"metric": "accuracy", "direction": "Maximize"},
    {"metric": "bytes", "direction": "Minimize"},
]
SWEEPS = {
    "grid": (sweep(HIDDEN, MOMENTUM, NINE), noisy),
    "random": (sweep(HIDDEN, MOMENTUM, RATE, algorithm="Random", maxTasks=30), noisy),
    "asha": (sweep(RATE, algorithm="Random", maxTasks=30, earlyStopping=STOPPING), noisy),
    "asha over a grid": (sweep(HIDDEN, NINE, earlyStopping=STOPPING, parallelism=7), noisy),
    "tpe": (sweep(RATE, HIDDEN, MOMENTUM, algorithm="TPE", maxTasks=18, seed=5), noisy),
    "tpe, stopped": (
        sweep(RATE, HIDDEN, algorithm="TPE", maxTasks=18, parallelism=3, earlyStopping=STOPPING),
        noisy,
    ),
    "nsga2": (sweep(RATE, HIDDEN, algorithm="NSGA2", maxTasks=54, objectives=FRONT), two),
    "nsga2, stopped": (
        sweep(RATE, HIDDEN, algorithm="NSGA2", maxTasks=54, earlyStopping=STOPPING),
        noisy,
    ),
}
EXPECTED = {}


@pytest.mark.parametrize("name", SWEEPS)
@given(chance=st.randoms(use_true_random=False))
@settings(patiently, max_examples=8)
def test_whatever_a_pool_does_the_stretches_and_results_are_the_same(name, chance):
    tasks, objective = SWEEPS[name]
    if name not in EXPECTED:
        schedule, begun = run(tasks, objective)
        EXPECTED[name] = begun, states(schedule), schedule.record()
    schedule, begun = play(tasks, objective, chance)
    assert (begun, states(schedule), schedule.record()) == EXPECTED[name]


def test_the_sweeps_above_have_what_they_are_to_show():
    for name, (tasks, objective) in SWEEPS.items():
        schedule, begun = run(tasks, objective)
        found = set(states(schedule))
        assert found >= {"Succeeded", "Failed"}, name
        assert ("Stopped" in found) == ("earlyStopping" in tasks["sweep"]), name
        assert len(begun) >= schedule.total
