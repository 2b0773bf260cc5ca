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


TUNE = {"steps": 1}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"prune": {}, "quantize": {}}], "steps[0] (s0) has prune and quantize; make a step of"),
        ([{}], "steps[0] (s0) has none of them; make a step of each"),
        ([{"quantize": {}}, {"prune": {}}], "steps[0] (s0) has quantize, and is not the last step"),
        ([{"prune": {}}, {"distill": {}}], "steps[1] (s1) distills, and has no fineTune; say for"),
        ([{"prune": {"schedule": {"everySteps": 1}}}], "has prune.schedule, and no fineTune; add"),
        ([{"prune": {}, "fineTune": {}}], "has neither of fineTune.epochs and fineTune.steps"),
        ([{"prune": {}, "fineTune": {"epochs": 1, "steps": 1}}], "has both of fineTune.epochs and"),
        (
            [{"prune": {"method": "OBS", "schedule": {"everySteps": 1}}, "fineTune": TUNE}],
            "has prune.schedule with method OBS and pattern Unstructured; take the schedule out",
        ),
        (
            [{"prune": {"pattern": "Channels", "method": "OBS"}}],
            "has prune.pattern Channels with method OBS; write method: Magnitude",
        ),
        (
            [{"prune": {"pattern": "Channels", "layers": [{"name": "0", "sparsity": "0.1"}]}}],
            "has prune.layers with pattern Channels; remove layers",
        ),
        (
            [{"prune": {"pattern": "TwoOfFour", "sparsity": "0.9"}}],
            "has prune.pattern TwoOfFour with sparsity 0.9; remove sparsity",
        ),
        (
            [{"quantize": {"bits": 4, "method": "GPTQ", "activations": "Static"}}],
            "has quantize.activations Static with bits 4 and method GPTQ; write bits: 8",
        ),
        (
            [{"quantize": {"activations": "Static", "ignore": ["0"]}}],
            "has quantize.activations Static with ignore 0; remove ignore",
        ),
        (
            [{"distill": {"teacher": {"parameters": {}}}, "fineTune": TUNE}],
            "has distill.teacher.parameters, and neither file nor entrypoint; name the file",
        ),
    ],
)
def test_steps_that_do_not_go_together(steps, message):
    named = [{"name": f"s{number}", **step} for number, step in enumerate(steps)]
    with pytest.raises(InvalidJob) as refused:
        validate(job(steps=named))
    (error,) = refused.value.errors
    assert str(error).startswith("spec.compression.steps: steps[")
    assert message in str(error)


def test_no_calibration_samples_are_refused():
    steps = [{"name": "int8", "quantize": {}}]
    with pytest.raises(
        InvalidJob, match=r"spec\.compression\.calibration\.samples: 0 is less than"
    ):
        validate(job(steps=steps, calibration={"samples": 0}))


@pytest.mark.parametrize(
    ("step", "field", "problem"),
    [
        ({"prune": {"sparsity": "1.0"}}, "prune.sparsity", "a fraction from 0 to below 1"),
        ({"prune": {"sparsity": 0.9}}, "prune.sparsity", "not a string"),
        ({"prune": {"sparcity": "0.9"}}, "prune.sparcity", "not a field"),
        ({"prune": {"sparsity": "0.9"}, "quantise": {}}, "quantise", "not a field"),
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
