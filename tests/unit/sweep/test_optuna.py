"""TPE and NSGA-II: what Optuna itself gives, and quietly."""

from __future__ import annotations

import logging
import statistics
import subprocess
import sys
import warnings

import optuna
import pytest
from playing import HIDDEN, MOMENTUM, RATE, TRAINER, run, sweep

from shardwise.sweep import RecordError, Schedule

WIDTH = {"name": "width", "range": {"type": "Int", "min": 8, "max": 512, "scale": "Log"}}
FRONT = [
    {"metric": "accuracy", "direction": "Maximize"},
    {"metric": "bytes", "direction": "Minimize"},
]


def ask(study):
    """The sweep over RATE, HIDDEN, MOMENTUM and WIDTH, as one writes it with Optuna."""
    trial = study.ask()
    assigned = {"rate": repr(trial.suggest_float("rate", 0.001, 1, log=True))}
    assigned["hidden"] = trial.suggest_categorical("hidden", [32, 64, 128])
    if assigned["hidden"] > 32:
        assigned["momentum"] = trial.suggest_categorical("momentum", ["0", "0.9"])
    assigned["width"] = trial.suggest_int("width", 8, 512, log=True)
    return trial, assigned


def quality(assigned):
    """Exact in float32, so that rounding is no difference."""
    rate = float(assigned["rate"])
    return round(1000 * (1 - abs(rate - 0.1)) + assigned["width"] / 8) / 1024


@pytest.mark.parametrize("parallelism", [1, 4])
def test_tpe_is_optunas(parallelism):
    tasks = sweep(
        *(RATE, HIDDEN, MOMENTUM, WIDTH),
        algorithm="TPE",
        maxTasks=40,
        seed=11,
        parallelism=parallelism,
    )
    _, begun = run(tasks, lambda s: None if s.trial == 13 else [quality(s.assigned)])

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=11), direction="maximize")
    under_way, found = [], []
    for number in range(40):
        trial, assigned = ask(study)
        under_way.append((trial, assigned))
        found.append(assigned)
        if number + 1 >= parallelism:
            ended, of_it = under_way.pop(0)
            if ended.number == 13:
                study.tell(ended, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(ended, quality(of_it))
    assert [dict(stretch.assigned) for stretch in begun] == found
    # Beyond the first ten, which are at random, results decide.
    other, _ = run(tasks, lambda s: [-quality(s.assigned)])
    assert [other.assigned(n) for n in range(10)] == found[:10]
    assert [other.assigned(n) for n in range(40)] != found


def test_nsga2_is_optunas():
    tasks = sweep(
        *(RATE, HIDDEN, MOMENTUM, WIDTH),
        algorithm="NSGA2",
        maxTasks=130,
        parallelism=1,
        objectives=FRONT,
    )

    def both(assigned):
        return [quality(assigned), float(assigned["width"])]

    schedule, begun = run(tasks, lambda s: both(s.assigned))
    study = optuna.create_study(
        sampler=optuna.samplers.NSGAIISampler(seed=0), directions=["maximize", "minimize"]
    )
    found = []
    for _ in range(130):
        trial, assigned = ask(study)
        found.append(assigned)
        study.tell(trial, both(assigned))
    assert [dict(stretch.assigned) for stretch in begun] == found
    other, _ = run(tasks, lambda s: [-quality(s.assigned), 0.0])
    assert [other.assigned(n) for n in range(130)] != [schedule.assigned(n) for n in range(130)]


def test_tpe_learns_from_trials_that_wait_at_a_rung():
    """Only 1 in 9 is trained to its end: with those alone it would be at random nearly always."""

    def late(algorithm):
        distances = []
        for seed in range(4):
            stopping = {"rungs": [1, 3], "reductionFactor": 3}
            tasks = sweep(RATE, algorithm=algorithm, maxTasks=60, seed=seed, earlyStopping=stopping)
            schedule, _ = run(tasks, lambda s: [quality({**s.assigned, "width": 8})])
            rates = [float(schedule.assigned(trial)["rate"]) for trial in range(40, 60)]
            distances += [abs(rate - 0.1) for rate in rates]
        return statistics.median(distances)

    assert late("TPE") < 0.75 * late("Random")


def test_what_it_suggests_differs_by_seed():
    first, second = (
        run(sweep(RATE, algorithm="TPE", maxTasks=3, seed=seed), lambda s: [0.0])[0]
        for seed in (0, 2**32 - 1)
    )
    assert first.assigned(0) != second.assigned(0)


def test_it_writes_nothing_and_warns_of_nothing(capfd, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        tasks = sweep(RATE, HIDDEN, MOMENTUM, algorithm="TPE", maxTasks=15)
        run(tasks, lambda s: None if s.trial == 2 else [1.0])
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("optuna")]


def test_only_a_sweep_that_asks_for_it_imports_it():
    code = f"""
import sys
from shardwise.sweep import Schedule
import shardwise.coordinator
Schedule({sweep(HIDDEN)!r}, {TRAINER!r}).next()
assert not {{"optuna", "numpy", "sqlalchemy"}} & set(sys.modules)
Schedule({sweep(HIDDEN, algorithm="TPE", maxTasks=2)!r}, {TRAINER!r}).next()
assert "optuna" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_a_record_whose_suggestions_differ_is_refused(monkeypatch):
    tasks = sweep(RATE, algorithm="TPE", maxTasks=12, parallelism=1)
    schedule, _ = run(tasks, lambda s: [1.0])
    # As another version of Optuna would.
    plain = optuna.samplers.TPESampler
    monkeypatch.setattr(
        "shardwise.sweep.optuna_sampler.TPESampler", lambda seed, **how: plain(seed=seed + 1, **how)
    )
    with pytest.raises(RecordError, match="another version of Optuna"):
        Schedule.restore(tasks, TRAINER, schedule.record())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "TPE"}, "TPE needs maxTasks"),
        ({"algorithm": "Random"}, "Random needs maxTasks"),
        (
            {"algorithm": "TPE", "maxTasks": 3, "objectives": FRONT},
            "TPE needs exactly one objective; the spec has 2",
        ),
        (
            {"algorithm": "NSGA2", "maxTasks": 3, "objectives": []},
            "NSGA2 needs at least one objective; the spec has 0",
        ),
    ],
)
def test_what_an_algorithm_needs(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(sweep(HIDDEN, **settings), TRAINER)


def test_what_is_not_suggested_yet_has_no_values():
    schedule = Schedule(sweep(HIDDEN, algorithm="TPE", maxTasks=3), TRAINER)
    with pytest.raises(KeyError, match="task 0 is not suggested yet"):
        schedule.assigned(0)
