"""spec.compression: what validation accepts, and what it says of the rest."""

from __future__ import annotations

import pytest

from shardwise.api.validation import InvalidJob, validate


def job(**compression):
    return {
        "apiVersion": "shardwise.dev/v1alpha1",
        "kind": "OptimizationJob",
        "metadata": {"name": "small"},
        "spec": {
            "trainer": {"entrypoint": "a:b", "steps": 1, "batchSize": 4, "shards": 2},
            "compression": compression,
        },
    }


def test_a_whole_pipeline_is_accepted():
    steps = [
        {
            "name": "prune",
            "prune": {"sparsity": "0.9", "layers": [{"name": "0", "sparsity": "0.5"}]},
            "fineTune": {"epochs": 1, "learningRate": "0.01"},
        },
        {"name": "int8", "quantize": {"activations": "Static"}},
    ]
    guard = {"maxAccuracyDrop": "0.01"}
    compression = validate(job(steps=steps, guard=guard)).spec.compression
    assert compression is not None
    assert compression.to_json()["calibration"] == {"samples": 1024, "batchSize": 64}
    assert compression.to_json()["guard"]["onGuard"] == "Fail"


@pytest.mark.parametrize(
    ("step", "field", "problem"),
    [
        ({"prune": {"sparsity": "1.0"}}, "prune.sparsity", "a fraction from 0 to below 1"),
        ({"prune": {"sparsity": 0.9}}, "prune.sparsity", "not a string"),
        ({"prune": {"sparcity": "0.9"}}, "prune.sparcity", "not a field"),
        ({"quantize": {"bits": 16}}, "quantize.bits", "more than 8"),
        ({"distill": {"temperature": "0"}}, "distill.temperature", "a positive number"),
    ],
)
def test_errors_name_the_field(step, field, problem):
    with pytest.raises(InvalidJob) as refused:
        validate(job(steps=[{"name": "one", **step}]))
    (error,) = refused.value.errors
    assert f"spec.compression.steps[0].{field}" in str(error)
    assert problem in str(error)
