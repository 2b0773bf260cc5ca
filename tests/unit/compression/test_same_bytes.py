"""The same artifact on any number of workers, for every method."""

from __future__ import annotations

import hashlib

import pytest
from methods import STEPS
from small import copied, digest, digests, finished, pipeline, trained
from threads import together

from shardwise.compression.deployment import deploy
from shardwise.compression.stages import Surroundings
from shardwise.compression.static import StaticRanges
from shardwise.compression.subject import Subject
from shardwise.engine.activity import silent

AROUND = Surroundings(
    shards=4,
    seed=3,
    batch_size=32,
    calibration_samples=100,
    calibration_batch_size=8,
    beat=silent,
)


@pytest.fixture(scope="module", params=[False, True], ids=["linear", "convolution"])
def task(request):
    return trained(convolution=request.param, width=8 if request.param else 24)


@pytest.mark.parametrize("case", STEPS)
def test_same_bytes_on_any_number_of_workers(task, case):
    spec = {"steps": STEPS[case]}
    expected = digest(finished(pipeline(task, spec)))
    for workers in (2, 3, 4):
        assert digests(task, spec, workers) == {expected}


def test_static_ranges_have_the_same_bytes(task):
    # torch.export patches the module class while it traces: it is kept out of the threads here.
    # tests/local runs the whole step with processes.
    found = set()
    for workers in (1, 2, 3, 4):
        subjects = [Subject(task=copied(task)) for _ in range(workers)]
        stages = [StaticRanges(subject, AROUND, "activations") for subject in subjects]

        def run(group, stages=stages):
            while not stages[group.rank].done:
                stages[group.rank].advance(group)

        together(workers, run)
        found |= {hashlib.sha256(deploy(subject).packed()).hexdigest() for subject in subjects}
    assert len(found) == 1
