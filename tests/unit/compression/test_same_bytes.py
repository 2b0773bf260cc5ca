"""The same artifact on any number of workers, for every method."""

from __future__ import annotations

import hashlib

import pytest
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
TUNE = {"steps": 12, "learningRate": "0.05"}
STEPS = {
    "magnitude": [{"prune": {"sparsity": "0.8"}, "fineTune": TUNE}],
    "taylor": [{"prune": {"method": "Taylor", "sparsity": "0.8"}}],
    "fisher": [{"prune": {"method": "Fisher", "sparsity": "0.8", "scope": "Uniform"}}],
    "obs": [{"prune": {"method": "OBS", "sparsity": "0.8"}}],
    "2:4 magnitude": [{"prune": {"pattern": "TwoOfFour"}, "fineTune": TUNE}],
    "2:4 obs": [{"prune": {"method": "OBS", "pattern": "TwoOfFour"}}],
    "gradual": [
        {"prune": {"sparsity": "0.8", "schedule": {"everySteps": 3}}, "fineTune": TUNE},
    ],
    "gradual taylor": [
        {
            "prune": {"method": "Taylor", "sparsity": "0.8", "schedule": {"everySteps": 3}},
            "fineTune": TUNE,
        },
    ],
    "channels": [{"prune": {"pattern": "Channels", "sparsity": "0.5"}, "fineTune": TUNE}],
    "int8": [{"quantize": {}}],
    "int3": [{"quantize": {"bits": 3, "groupSize": 8}}],
    "gptq": [{"quantize": {"method": "GPTQ", "bits": 2, "groupSize": 8}}],
    "dynamic": [{"quantize": {"activations": "Dynamic"}}],
    "aware": [{"quantize": {"bits": 2}, "fineTune": TUNE}],
    "aware, inputs too": [
        {"quantize": {"activations": "Dynamic"}, "fineTune": TUNE},
    ],
    "distill": [{"distill": {"student": {"parameters": {"width": 8}}}, "fineTune": TUNE}],
    "distill, not cached": [
        {"distill": {"teacherOutputs": "EveryStep", "samples": 90}, "fineTune": TUNE}
    ],
    "all": [
        {"prune": {"method": "OBS", "sparsity": "0.5"}, "fineTune": TUNE},
        {"distill": {}, "fineTune": TUNE},
        {"quantize": {"method": "GPTQ", "bits": 4}},
    ],
}


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
