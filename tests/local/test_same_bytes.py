"""The first promise: the same bytes on any number of workers, for each example.

The larger examples are cut short for it; `SHARDWISE_CHAOS=full` (make chaos) has them whole.
"""

from __future__ import annotations

import csv
import hashlib
import os

import pytest

pytestmark = pytest.mark.timeout(1800)

FULL = os.environ.get("SHARDWISE_CHAOS") == "full"
STEPS = {"fashion-mnist": None if FULL else 120, "shakespeare": None if FULL else 30}


@pytest.mark.parametrize("workers", [2, 3, 4, 5, 8])
def test_digits(example, workers):
    assert example("digits", workers).hashes == example("digits", 1).hashes


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_digits_with_partitioned_parameters(example, workers):
    assert example("digits", workers, "parameters").hashes == example("digits", 1).hashes


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", STEPS)
def test_larger_examples(example, name, workers):
    found = example(name, workers, steps=STEPS[name])
    assert found.hashes == example(name, 1, steps=STEPS[name]).hashes


@pytest.mark.parametrize("name", STEPS)
def test_larger_examples_with_partitioned_parameters(example, name):
    found = example(name, 2, "parameters", STEPS[name])
    assert found.hashes == example(name, 1, steps=STEPS[name]).hashes


@pytest.mark.parametrize(("name", "least"), [("digits", 0.97), ("fashion-mnist", 0.88)])
def test_the_examples_learn(example, name, least):
    assert example(name, 2).result["metrics"]["accuracy"] >= least


def test_shakespeare_beats_the_frequencies_of_letters(example):
    # Guessing letters by their frequency in the training part has a cross-entropy of 3.15 here.
    assert example("shakespeare", 2).result["metrics"]["loss"] < 3.0


def test_the_files_of_a_run(example):
    run = example("digits", 4)
    result = run.result
    assert result["steps"] == 480
    assert 0.0 <= result["metrics"]["accuracy"] <= 1.0
    assert result["generations"] == 1
    assert result["seconds"] > 0
    assert result["samplesPerSecond"] > 0
    assert {"shardwise", "torch", "python"} <= result["versions"].keys()
    # The hash is the file's own: `sha256sum weights.safetensors` says the same.
    for name, key in (("weights", "weightsSha256"), ("optimizer", "optimizerSha256")):
        data = (run.output / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(data).hexdigest() == result[key]
    rows = list(csv.DictReader((run.output / "history.csv").read_text().splitlines()))
    assert len(rows) == 480
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert (run.output / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.output.glob(".*")), "no temporary file is left"
