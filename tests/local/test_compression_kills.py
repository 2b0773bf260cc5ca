"""SIGKILL in the middle of calibration, solving and fine-tuning: every file comes out the same."""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest

pytestmark = pytest.mark.timeout(1200)

TUNE = {"steps": 12, "learningRate": "0.05"}
STEPS = {
    "obs, distillation, gptq": [
        {"name": "prune", "prune": {"method": "OBS", "sparsity": "0.6"}, "fineTune": TUNE},
        {"name": "distill", "distill": {}, "fineTune": TUNE},
        {"name": "gptq", "quantize": {"method": "GPTQ", "bits": 3}},
    ],
    "gradual, channels, static int8 with training": [
        {
            "name": "prune",
            "prune": {"method": "Taylor", "sparsity": "0.6", "schedule": {"everySteps": 3}},
            "fineTune": TUNE,
        },
        {"name": "narrow", "prune": {"pattern": "Channels", "sparsity": "0.25"}},
        {"name": "int8", "quantize": {"activations": "Static"}, "fineTune": TUNE},
    ],
}
BLOWS = {
    "obs, distillation, gptq": (
        "calibrate obs:6",
        "solve obs:5",
        "tune:4",
        "teacher:3",
        "calibrate gptq:2",
        "solve gptq:1",
    ),
    "gradual, channels, static int8 with training": (
        "scores:4",
        "tune:3",
        "ranges:2",
        "histograms:1",
    ),
}
"""Each worker once, for it is back when the group is further; and the first one lives."""


def manifest(case, blows=()):
    trainer = {"entrypoint": "struck:task", "parameters": {"blows": ", ".join(blows)}}
    job = chaos.example("compress-digits", steps=40, **trainer)
    job["spec"]["compression"] = {
        "steps": STEPS[case],
        "calibration": {"samples": 512, "batchSize": 16},
    }
    # A kill shows at once; that a loaded machine is slow to answer must not pass for one.
    job["spec"]["workers"] = {"replicas": 7, "detectionMilliseconds": 30_000}
    return job


def hashes(done):
    found = {item["name"]: item["sha256"] for item in done.result["artifacts"]}
    assert found.keys() == {"model.safetensors", "graph.json.gz", "model.onnx"}
    return found | {"weights": done.result["weightsSha256"]}


@pytest.mark.parametrize("case", STEPS)
def test_kills_at_every_place_of_a_compression(case, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    # Ten processes that import torchao at once on two cores are silent for longer than the usual.
    monkeypatch.setattr(chaos, "WATCHDOG_SECONDS", 60.0)
    blows = BLOWS[case]
    struck = chaos.run(manifest(case, blows), workers=len(blows) + 1)
    assert struck.struck == set(blows)
    assert struck.ended.report.lost_steps == 0
    alone = chaos.run(manifest(case), workers=1)
    assert hashes(struck) == hashes(alone)
    rows = [
        [{key: row[key] for key in row if key != "latencyMilliseconds"} for row in table]
        for table in (done.result["compression"]["rows"] for done in (struck, alone))
    ]
    assert rows[0] == rows[1]
