"""The first promise: the same bytes on any number of workers, for each example."""

from __future__ import annotations

import csv
import hashlib

import pytest

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("workers", [2, 3, 4, 5, 8])
def test_digits(example, workers):
    assert example("digits", workers).hashes == example("digits", 1).hashes


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_digits_with_partitioned_parameters(example, workers):
    assert example("digits", workers, "parameters").hashes == example("digits", 1).hashes


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", ["fashion-mnist", "shakespeare"])
def test_larger_examples(example, name, workers):
    assert example(name, workers).hashes == example(name, 1).hashes


@pytest.mark.parametrize("name", ["fashion-mnist", "shakespeare"])
def test_larger_examples_with_partitioned_parameters(example, name):
    assert example(name, 2, "parameters").hashes == example(name, 1).hashes


@pytest.mark.parametrize(("name", "least"), [("digits", 0.97), ("fashion-mnist", 0.88)])
def test_the_examples_learn(example, name, least):
    assert example(name, 1).result["metrics"]["accuracy"] >= least


def test_shakespeare_beats_the_frequencies_of_letters(example):
    # Guessing letters by their frequency in the training part has a cross-entropy of 3.15 here.
    assert example("shakespeare", 1).result["metrics"]["loss"] < 3.0


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
