"""A hundred mistakes: the API server and the operator say the same: the field and the remedy."""

from __future__ import annotations

import random

import pytest
from api_server import refusals
from bad_manifests import BAD, BASES, Bad, unclear

from shardwise.api.validation import InvalidJob, validate


def test_there_are_a_hundred_and_each_has_its_name() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) > 100


@pytest.mark.parametrize("base", BASES)
def test_the_bases_are_good(base: str) -> None:
    validate(BASES[base])
    assert refusals(BASES[base]) == refusals(BASES[base], with_cel=False) == []


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_the_operator_says_what_is_wrong(bad: Bad) -> None:
    with pytest.raises(InvalidJob) as caught:
        validate(bad.manifest)
    lines = [str(error) for error in caught.value.errors if error.field.startswith(bad.field)]
    assert any(bad.both in line and bad.python in line for line in lines), str(caught.value)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_the_api_server_says_the_same(bad: Bad) -> None:
    found = refusals(bad.manifest)
    if bad.late:
        assert found == []
        return
    assert any(bad.field in line and bad.both in line for line in found), found
    assert unclear(found) == []


@pytest.mark.parametrize("bad", [b for b in BAD if not b.late and b.both], ids=lambda bad: bad.name)
def test_where_the_server_names_the_value_the_words_are_the_same(bad: Bad) -> None:
    with pytest.raises(InvalidJob) as caught:
        validate(bad.manifest)
    ours = str(caught.value)
    for line in refusals(bad.manifest):
        text = line.partition(": ")[2]
        if line.startswith(bad.field) and text.startswith("'") and "; " in text and "…" not in ours:
            assert text in ours, (text, ours)


@pytest.mark.parametrize("seed", range(300))
def test_what_the_server_takes_the_operator_takes_or_explains(seed: int) -> None:
    """Two mistakes at once: nothing is silent, nothing raises anything but InvalidJob."""
    choose = random.Random(seed)
    first, second = choose.sample([bad for bad in BAD if bad.base == "plain"], 2)
    try:
        manifest = Bad("", {**first.changes, **second.changes}, "").manifest
    except (AttributeError, KeyError, TypeError):
        return  # The one takes away what the other changes.
    with pytest.raises(InvalidJob) as caught:
        validate(manifest)
    assert all(error.field and error.problem and error.remedy for error in caught.value.errors)
