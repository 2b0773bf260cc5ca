"""Values of several parameters that do not go together are told before any task begins."""

from __future__ import annotations

import pytest
from tasks_job import job, sweep

from shardwise.api.validation import InvalidJob, validate

SWEPT = "spec.tasks.sweep.parameters"
CHOICE = {"name": "hidden", "values": [32, 64]}

PATTERN = {
    "name": "pattern",
    "field": "compression.prune.prune.pattern",
    "values": ["Unstructured", "Channels"],
}
METHOD = {
    "name": "method",
    "field": "compression.prune.prune.method",
    "values": ["Magnitude", "OBS"],
}


def test_values_that_do_not_go_together():
    with pytest.raises(InvalidJob) as caught:
        validate(job(sweep(PATTERN, METHOD)))
    (error,) = caught.value.errors
    assert error.field == SWEPT
    assert error.value == {"pattern": "Channels", "method": "OBS"}
    assert error.problem == (
        "pattern 'Channels' and method 'OBS' make spec.compression.steps invalid:"
        " steps[0] (prune) has prune.pattern Channels with method OBS"
    )
    assert "write method: Magnitude" in error.remedy


@pytest.mark.parametrize("value", ["Unstructured", "Channels"])
def test_values_that_never_come_together_need_not_go_together(value):
    """A condition keeps them apart; the other way round, it brings them together."""
    method = METHOD | {"when": {"parameter": "pattern", "values": [value]}}
    if value == "Unstructured":
        validate(job(sweep(PATTERN, method)))
    else:
        with pytest.raises(InvalidJob, match="pattern 'Channels' and method 'OBS' make"):
            validate(job(sweep(PATTERN, method)))


def test_what_is_swept_over_is_tried_with_what_it_goes_with():
    """A sparsity does not go with TwoOfFour, which spec.compression has and no task keeps."""
    manifest = job(
        sweep(
            PATTERN,
            {
                "name": "sparsity",
                "field": "compression.prune.prune.sparsity",
                "values": ["0.5", "0.9"],
            },
        )
    )
    manifest["spec"]["compression"]["steps"][0]["prune"]["pattern"] = "TwoOfFour"
    validate(manifest)
    manifest["spec"]["tasks"]["sweep"]["parameters"].pop(0)
    with pytest.raises(InvalidJob) as caught:
        validate(manifest)
    (error,) = caught.value.errors
    assert error.field == f"{SWEPT}[0].values[1]"
    assert "'0.9' makes spec.compression.steps invalid" in error.problem


def test_a_conditions_parameter_may_be_of_another_part():
    """A grid of arguments decides which pattern there is; only the pattern is tried."""
    tasks = sweep(CHOICE, PATTERN | {"when": {"parameter": "hidden", "values": [32]}}, METHOD)
    with pytest.raises(InvalidJob) as caught:
        validate(job(tasks))
    assert [error.value for error in caught.value.errors] == [
        {"pattern": "Channels", "method": "OBS"}
    ]
