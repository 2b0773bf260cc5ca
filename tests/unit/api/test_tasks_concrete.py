"""The spec of one task: spec.trainer and spec.compression with its own values."""

from __future__ import annotations

import copy

import pytest
from tasks_job import LIST, job

from shardwise.api.tasks_concrete import concrete
from shardwise.api.types import Compression, Trainer
from shardwise.api.validation import validate


def parts(manifest):
    spec = validate(manifest).spec
    return spec.trainer.to_json(), spec.compression.to_json(), spec.tasks.to_json()


def test_values_of_a_sweep_go_where_they_belong():
    given = parts(job())
    before = copy.deepcopy(given)
    trainer, compression = concrete(*given, {"learning_rate": "0.1", "hidden": 64, "bits": 3})
    assert given == before, "nothing of what is shared is touched"
    assert trainer == given[0] | {"parameters": {"hidden": 64, "learning_rate": "0.1"}}
    assert compression["steps"][1]["quantize"]["bits"] == 3
    compression["steps"][1]["quantize"]["bits"] = 8
    assert compression == given[1], "and nothing else is changed"


def test_a_parameter_that_is_left_out_leaves_the_spec_as_it_is():
    trainer, compression = concrete(*parts(job()), {})
    assert (trainer, compression) == parts(job())[:2]


@pytest.mark.parametrize(("name", "value"), [("epochs", 3), ("batchSize", 32), ("seed", 9)])
def test_a_field_of_the_trainer(name, value):
    swept = {"name": "other", "field": f"trainer.{name}", "values": [value]}
    trainer, _ = concrete(*parts(job({"sweep": {"parameters": [swept]}})), {"other": value})
    assert trainer[name] == value
    assert trainer["parameters"] == {"hidden": 16}
    Trainer.model_validate(trainer)


@pytest.mark.parametrize(
    ("written", "set"),
    [
        ("0.5", "0.5"),
        ("1e-05", "0.00001"),
        ("0.1234567890123", "0.123456789"),
        ("0.0", "0"),
    ],
)
def test_a_fraction_of_the_compression_has_at_most_nine_places(written, set):
    swept = {
        "name": "sparsity",
        "field": "compression.prune.prune.sparsity",
        "range": {"type": "Float", "min": 0, "max": "0.9", "points": 3},
    }
    given = parts(job({"sweep": {"parameters": [swept]}}))
    _, compression = concrete(*given, {"sparsity": written})
    assert compression["steps"][0]["prune"]["sparsity"] == set
    Compression.model_validate(compression)


def test_an_item_of_a_list_has_its_own_parameters_and_compression():
    given = parts(job({"list": LIST}))
    first, second = given[2]["list"]
    trainer, compression = concrete(*given, first)
    assert trainer["parameters"] == {"hidden": 16, "learning_rate": "0.1"}
    assert compression == given[1]
    trainer, compression = concrete(*given, second)
    assert trainer == given[0]
    assert [step["name"] for step in compression["steps"]] == ["half"]


def test_without_a_compression_there_is_none():
    assert concrete({"epochs": 1}, None, {"list": []}, {"name": "a"}) == (
        {"epochs": 1, "parameters": {}},
        None,
    )


def test_what_is_not_there_cannot_be_set():
    given = parts(job())
    given[1]["steps"].pop()
    with pytest.raises(KeyError, match="int8"):
        concrete(*given, {"bits": 3})
    with pytest.raises(KeyError, match="width"):
        concrete(*given, {"width": 3})
