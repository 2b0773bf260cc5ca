"""What a job that compresses says it is doing: in order, and never that it is done too early."""

from __future__ import annotations

from itertools import groupby

from small import trained

from shardwise.engine.group import Alone
from shardwise.worker.work import Work

TRAINER = {"entrypoint": "a:b", "steps": 2, "batchSize": 16, "shards": 2, "seed": 0}
STEPS = [
    {"name": "smaller", "prune": {"sparsity": "0.5"}},
    {"name": "int4", "quantize": {"bits": 4}},
]


def work(compression):
    return Work(TRAINER, compression, lambda *_: trained(), lambda _: None)


def test_each_step_is_a_stage_between_the_first_measurement_and_the_export():
    made = work({"steps": STEPS})
    made.join(Alone(), 0)
    stages = [made.stage]
    while not made.trained:
        made.training.step(flag=False, ask=False)
        stages.append(made.stage)
    while not made.done:
        made.compress()
        stages.append(made.stage)
    steps = ("trained", "smaller", "int4", "export")
    assert [name for name, _ in groupby(stages)] == ["", *(f"compression: {it}" for it in steps)]


def test_a_job_that_only_trains_has_no_stage():
    made = work(None)
    made.join(Alone(), 0)
    while not made.done:
        made.training.step(flag=False, ask=False)
        assert made.stage == ""
