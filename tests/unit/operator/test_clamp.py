"""Whatever a worker tells, or somebody writes into a status, has the schema's form afterwards."""

from __future__ import annotations

import pytest

from shardwise.api.types import OptimizationJobStatus
from shardwise_operator.clamp import MOST_GENERATIONS, clamped, read, word

AT = "2026-01-01T00:00:00Z"


def condition(**changes):
    good = {"type": "Running", "status": "True", "reason": "R", "message": "m"}
    return {**good, "lastTransitionTime": AT, **changes}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"goodputSeconds": [{"kind": "a b", "seconds": "1"}]}, {"goodputSeconds": []}),
        (
            {"checkpoint": {"step": 2**60, "bytes": -1}},
            {"checkpoint": {"step": 2**53 - 1, "bytes": 0}},
        ),
        ({"workers": {"generation": 2**63 - 1}}, {"workers": {"generation": 2**53 - 1}}),
        ({"result": {"weightsSha256": "x", "steps": 5}}, {"result": {"steps": 5}}),
        ({"progress": {"step": float("nan"), "percent": 700}}, {"progress": {"percent": 100}}),
        ({"conditions": [condition(message=5)]}, {"conditions": []}),
        (
            {"conditions": [condition(reason="not a word 2")]},
            {"conditions": [condition(reason="Notaword")]},
        ),
        (
            {"conditions": [condition(message="old"), condition(message="new")]},
            {"conditions": [condition(message="new")]},
        ),
        ({"state": "Odd", "message": "m" * 5000, "unknown": 1}, {"message": "m" * 1023 + "…"}),
        ({"message": "\ud800"}, {"message": "?"}),
        (5, {}),
        ([], {}),
    ],
)
def test_what_has_no_form_goes_and_the_rest_stays(told, kept):
    assert clamped(told) == kept
    OptimizationJobStatus.model_validate(clamped(told))


def test_a_list_that_is_too_long_is_cut():
    names = [f"n{n}" for n in range(5000)]
    assert clamped({"workers": {"names": names}}) == {"workers": {"names": names[:1024]}}


def test_what_is_read_leaves_room_to_count_on_and_asks_for_no_million_pods():
    found = read(
        {"workers": {"generation": 2**53 - 1, "desired": 2**31 - 1}, "activeSeconds": 2**52}
    )
    assert found["workers"] == {"generation": MOST_GENERATIONS, "desired": 1024}
    assert found["activeSeconds"] < 2**32


def test_a_reason_is_one_word():
    assert word("Error2", "Unknown") == "Error"
    assert word("lower", "Unknown") == "Lower"
    assert word("5", "Unknown") == "Unknown"
