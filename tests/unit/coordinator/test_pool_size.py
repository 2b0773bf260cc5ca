"""Ten thousand tasks: what is kept and told of them stays small, and what is kept goes round."""

from __future__ import annotations

import tracemalloc

from shardwise.coordinator import pool_report, rows
from shardwise.coordinator.pool import Pool
from shardwise.coordinator.protocol import MAX_LINE, Welcome, decode, encode
from shardwise.coordinator.report import TasksReport

from .pool_world import ACCURACY, World, assignment

COUNT = 10_000
TASKS = {
    "sweep": {
        "parameters": [
            {"name": "learning_rate", "values": [f"0.{n:03}" for n in range(100)]},
            {"name": "hidden", "values": list(range(100))},
        ],
        "algorithm": "Grid",
    },
    "objectives": ACCURACY,
}
BYTES_PER_TASK = 4096
"""Of the coordinator's memory; the record is 64 KiB of it at most."""


def run_through(found: World) -> None:
    for number in range(COUNT):
        found.end(f"p/task-{number}", accuracy=(number * 7919 % COUNT) / COUNT)
        if number % 500 == 0:  # as often as a status is written, or more
            told(found)


def told(found: World) -> TasksReport:
    tasks = pool_report.report(found.pool, (), found.now).tasks
    assert tasks is not None
    return tasks


def test_ten_thousand_tasks() -> None:
    tracemalloc.start()
    found = World(Pool(assignment(TASKS, 1), 0.0))
    found.come(0)
    run_through(found)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < COUNT * BYTES_PER_TASK
    tasks = told(found)
    assert (tasks.total, tasks.succeeded, tasks.pending) == (COUNT, COUNT, 0)
    assert len(tasks.rows) <= 20
    assert len(tasks.record) <= 64 * 1024
    assert tasks.best is not None and tasks.best.metrics == {"accuracy": 0.9999}

    (collecting,) = found.open.values()
    line = encode(Welcome(assignment=collecting))
    assert len(line) < MAX_LINE
    welcome = decode(line)
    assert isinstance(welcome, Welcome)
    stretch = welcome.assignment.stretch
    assert stretch is not None and stretch.collect is not None
    table = rows.unpack(stretch.collect.rows)
    assert len(table) == COUNT
    assert {row.state for row in table} == {"Succeeded"}

    again = Pool(assignment(TASKS, 1, record=tasks.record, began=True), 0.0)
    after = pool_report.report(again, (), 0.0).tasks
    assert after is not None
    assert (after.succeeded, after.best and after.best.name) == (COUNT, tasks.best.name)
