"""Running a schedule without a pool: in its own order, or as a pool of any kind would."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import HealthCheck, settings

from shardwise.sweep import Schedule, Stretch

TRAINER = {"entrypoint": "m:f", "epochs": 9, "batchSize": 8, "shards": 2}
MAXIMIZE = [{"metric": "accuracy", "direction": "Maximize"}]
RATE = {"name": "rate", "range": {"type": "Float", "min": "0.001", "max": "1", "scale": "Log"}}
HIDDEN = {"name": "hidden", "values": [32, 64, 128]}
MOMENTUM = {
    "name": "momentum",
    "values": ["0", "0.9"],
    "when": {"parameter": "hidden", "values": [64, 128]},
}

patiently = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
"""The machine may be busy."""

Objective = Callable[[Stretch], list[float] | None]


def sweep(*parameters: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """spec.tasks of a sweep with one objective; `maxTasks` and `parallelism` among the settings go
    beside the sweep."""
    beside = {key: settings.pop(key) for key in ("maxTasks", "parallelism") if key in settings}
    return {
        "sweep": {"parameters": list(parameters), **settings},
        "objectives": settings.pop("objectives", MAXIMIZE),
        **beside,
    }


def run(
    tasks: Mapping[str, Any], objective: Objective, trainer: Mapping[str, Any] = TRAINER
) -> tuple[Schedule, list[Stretch]]:
    """All stretches, each told before the next begins as far as the schedule lets it."""
    schedule = Schedule(tasks, trainer)
    begun = []
    told = 0
    while not schedule.exhausted:
        while (stretch := schedule.next()) is not None:
            begun.append(stretch)
        schedule.tell(told, objective(begun[told]))
        told += 1
    return schedule, begun


def play(
    tasks: Mapping[str, Any],
    objective: Objective,
    chance: random.Random,
    trainer: Mapping[str, Any] = TRAINER,
) -> tuple[Schedule, list[Stretch]]:
    """All stretches on a pool where anything is done at any time: stretches begin late, end in any
    order, are told twice, and the schedule is restored from its record now and then."""
    schedule = Schedule(tasks, trainer)
    begun: list[Stretch] = []
    open_ones: list[Stretch] = []
    while not schedule.exhausted:
        what = chance.random()
        if what < 0.4 and (stretch := schedule.next()) is not None:
            assert stretch.number == len(begun)
            begun.append(stretch)
            open_ones.append(stretch)
        elif what < 0.9 and open_ones:
            ended = open_ones.pop(chance.randrange(len(open_ones)))
            schedule.tell(ended.number, objective(ended))
            if chance.random() < 0.1:
                schedule.tell(ended.number, None)
        elif what > 0.97:
            record = schedule.record()
            schedule, found = Schedule.restore(tasks, trainer, record)
            open_ones.sort(key=lambda stretch: stretch.number)
            assert list(found) == open_ones
            assert schedule.record() == record
    assert not open_ones
    return schedule, begun


def states(schedule: Schedule) -> list[str]:
    return [schedule.state(trial) for trial in range(schedule.total)]
