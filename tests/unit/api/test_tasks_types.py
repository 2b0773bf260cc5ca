"""spec.tasks and status.tasks: what they hold, and that the hash of a job has them."""

from __future__ import annotations

import json
import re

import pytest
from tasks_job import LIST, SWEEP, job

from shardwise.api.crd import COLUMNS
from shardwise.api.schema import structural
from shardwise.api.spec import trainer_sha256
from shardwise.api.status_tasks import MAX_PARETO_ROWS, MAX_TASK_ROWS
from shardwise.api.tasks import FIELD_PATTERN
from shardwise.api.types import Metric, TaskParameter, TaskRow, Tasks, TasksStatus, split_trainer
from shardwise.api.validation import InvalidJob, validate


def test_a_sweep_gets_its_defaults():
    tasks = validate(job()).spec.tasks
    assert tasks is not None
    found = tasks.to_json()
    assert found["sweep"]["parameters"][1:] == SWEEP["parameters"][1:]
    assert found == {
        "sweep": {"parameters": found["sweep"]["parameters"], "algorithm": "Grid", "seed": 0},
        "objectives": [],
        "maxRetries": 2,
        "workersPerTask": "Auto",
    }
    assert Tasks.model_validate(found) == tasks


def test_a_list_keeps_its_order_and_each_ones_own():
    tasks = validate(job({"list": LIST, "workersPerTask": 2})).spec.tasks
    assert tasks is not None
    assert tasks.list is not None
    assert [item.name for item in tasks.list] == ["theta-1", "theta-2"]
    assert tasks.list[0].parameters == {"learning_rate": "0.1"}
    assert tasks.list[1].compression is not None
    assert tasks.workers_per_task == 2


def test_a_pool_may_have_more_workers_than_a_task_can_use():
    manifest = job(shards=1)
    manifest["spec"]["workers"] = {"replicas": 30, "max": 40}
    validate(manifest)
    del manifest["spec"]["tasks"]
    with pytest.raises(InvalidJob, match=r"30 is more than spec\.trainer\.shards \(1\)"):
        validate(manifest)


def test_the_hash_of_what_is_trained_has_the_tasks():
    first, other = validate(job()), validate(job({"list": LIST}))
    parts = [first.spec.trainer, first.spec.compression]
    hashes = {trainer_sha256(*parts), trainer_sha256(*parts, first.spec.tasks)}
    hashes.add(trainer_sha256(*parts, other.spec.tasks))
    assert len(hashes) == 3
    trainer, compression, tasks = split_trainer(first.trainer_json())
    assert trainer == first.spec.trainer.to_json()
    assert first.spec.compression is not None
    assert compression == first.spec.compression.to_json()
    assert first.spec.tasks is not None
    assert tasks == first.spec.tasks.to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workersPerTask": 0}, "spec.tasks.workersPerTask: 0 is not accepted; write Auto, or an"),
        ({"workersPerTask": "2"}, "workersPerTask: '2' is not accepted; write Auto"),
        ({"workersPerTask": True}, "workersPerTask: True is not accepted; write Auto"),
        ({"list": []}, "spec.tasks.list: [] has fewer than 1 entries; give at least 1"),
        ({"list": {"a": 1}}, "spec.tasks.list: {'a': 1} is a mapping, not a list"),
        ({"list": [{"name": "A_1"}]}, "list[0].name: 'A_1' is not a name of lowercase letters"),
        ({"list": [{}]}, "spec.tasks.list[0].name: is missing; add name"),
        ({"maxTasks": 10_001}, "maxTasks: 10001 is more than 10000"),
        ({"sweeps": {}}, "'sweeps' is not a field of spec.tasks; did you mean 'sweep'?"),
        ({"objectives": [{"metric": "loss"}]}, "objectives[0].direction: is missing"),
        ({"sweep": {"parameters": []}}, "sweep.parameters: [] has fewer than 1 entries"),
    ],
)
def test_errors_of_single_fields(change, words):
    with pytest.raises(InvalidJob) as caught:
        validate(job({"list": LIST, **change}))
    assert words in str(caught.value)
    assert len(caught.value.errors) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "l-r"}, "name: 'l-r' cannot be the name of an argument; use at most 63"),
        ({"values": []}, "values: [] has fewer than 1 entries"),
        ({"values": [0.5]}, "values[0]: 0.5 is a fraction, and a fraction has more than one"),
        ({"range": {"type": "Real", "min": 1, "max": 2}}, "range.type: 'Real' is not 'Float'"),
        ({"range": {"type": "Int", "min": "a", "max": 2}}, "min: 'a' is not a number; give an"),
        ({"range": {"type": "Int", "min": 1.5, "max": 2}}, "range.min: 1.5 is a fraction"),
        ({"range": {"type": "Int", "min": 1}}, "range.max: is missing"),
        ({"field": "workers.replicas"}, "field: 'workers.replicas' is not trainer.epochs, .steps"),
        ({"field": "trainer.shards"}, "'trainer.shards' is not trainer.epochs"),
        ({"field": "compression.int8"}, "'compression.int8' is not trainer.epochs"),
        ({"field": "compression.int8.name"}, "'compression.int8.name' is not trainer.epochs"),
    ],
)
def test_errors_of_a_parameter_tell_its_place(change, words):
    parameter = {"name": "a", "values": [1]} | change
    with pytest.raises(InvalidJob) as caught:
        validate(job({"sweep": {"parameters": [parameter]}}))
    (error,) = caught.value.errors
    assert str(error).startswith("spec.tasks.sweep.parameters[0].")
    assert words in str(error)


def test_what_a_sweep_can_set_in_the_trainer_are_its_integers_but_few():
    trainer = structural(cel=False)["properties"]["spec"]["properties"]["trainer"]["properties"]
    settable = [name for name in trainer if re.fullmatch(FIELD_PATTERN, f"trainer.{name}")]
    assert sorted(settable) == ["batchSize", "epochs", "seed", "steps"]
    assert {trainer[name]["type"] for name in settable} == {"integer"}


def row(number: int) -> TaskRow:
    return TaskRow(
        name=f"task-{number}",
        state="Succeeded",
        parameters=tuple(TaskParameter(name=f"parameter{n}", value="0.1") for n in range(64)),
        metrics=tuple(Metric(name=f"metric{n}", value="0.98") for n in range(64)),
        weights_sha256="a" * 64,
        message="x" * 5000,
    )


def test_a_status_is_cut_to_its_bounds_and_not_refused():
    rows = tuple(map(row, range(100)))
    status = TasksStatus(
        total=10_000, best=rows[0], pareto=rows, items=rows, record="r" * 65_536, summary="1/10000"
    )
    found = status.to_json()
    assert [len(found["pareto"]), len(found["items"])] == [MAX_PARETO_ROWS, MAX_TASK_ROWS]
    assert len(found["items"][0]["parameters"]) == 16
    assert len(found["items"][0]["metrics"]) == 8
    assert TasksStatus.model_validate(found).to_json() == found
    assert found["best"]["name"] == "task-0"
    # With the longest record, and rows of 16 parameters and 8 metrics each.
    assert len(json.dumps(found)) < 200 * 1024


def test_kubectl_has_a_wide_column_for_tasks():
    (column,) = (found for found in COLUMNS if found["name"] == "Tasks")
    assert column["priority"] == 1
    assert column["jsonPath"] == ".status.tasks.summary"
