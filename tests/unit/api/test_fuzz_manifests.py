"""Whatever a manifest has in it, it is taken or refused in words; nothing raises anything else."""

from __future__ import annotations

import pytest
from api_server import CEL_ERRORS, refusals
from bad_manifests import unclear
from fuzz_manifests import SEEDS, fuzzed

from shardwise.api.validation import InvalidJob, validate


def taken(manifest: dict[str, object]) -> bool:
    try:
        validate(manifest)
    except InvalidJob as invalid:
        for error in invalid.errors:
            assert error.field.startswith("spec"), error
            assert error.problem and error.remedy, error
            assert "is not accepted" not in error.problem, error
        return False
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_taken_or_refused_in_words(seed: int) -> None:
    manifest = fuzzed(seed)
    accepted = taken(manifest)
    try:
        found = refusals(manifest)
    except CEL_ERRORS as error:
        raise AssertionError(f"a rule fails: {error!r}") from error
    assert unclear(found) == []
    assert not (accepted and found), found


def test_the_seeds_are_of_every_sort() -> None:
    """Some are valid all the same; most are refused."""
    answers = [(taken(fuzzed(seed)), bool(refusals(fuzzed(seed)))) for seed in SEEDS]
    assert answers.count((True, False)) > 5
    assert answers.count((False, True)) > 200
