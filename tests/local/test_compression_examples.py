"""The examples that compress, each shortened to a moment, as a user runs them."""

from __future__ import annotations

import pytest
import torch
import yaml
from runs import EXAMPLES, run

import shardwise
from shardwise.examples import fashion_mnist, shakespeare

pytestmark = pytest.mark.timeout(1200)

EVALUATIONS = {
    "compress-fashion-mnist": lambda: fashion_mnist.task().evaluation,
    "compress-distill": lambda: fashion_mnist.task().evaluation,
    "compress-shakespeare": lambda: shakespeare.task().evaluation,
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_example_leaves_all_files_and_loads(name, tmp_path):
    job = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    trainer, compression = job["spec"]["trainer"], job["spec"]["compression"]
    trainer.pop("epochs", None)
    trainer["steps"] = 30
    compression.pop("guard", None)  # it is not trained enough to be compared
    compression["calibration"] = {"samples": 128, "batchSize": 32}
    for step in compression["steps"]:
        if "fineTune" in step:
            step["fineTune"].pop("epochs")
            step["fineTune"]["steps"] = 30
        if "distill" in step:
            step["distill"]["samples"] = 512
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    done = run(file, tmp_path / "out", "--workers", "2")
    assert done.code == 0, done.stderr
    table = done.result["compression"]
    assert table["notes"] == []
    assert {item["name"] for item in done.result["artifacts"]} == {
        "model.safetensors",
        "graph.json.gz",
        "model.onnx",
    }
    first, last = table["rows"][0], table["rows"][-1]
    assert last["bytes"] < 0.5 * first["bytes"]
    assert all(row["latencyMilliseconds"] > 0 for row in table["rows"])

    *inputs, targets = EVALUATIONS[name]().batch(torch.arange(500))
    with torch.no_grad():
        found = shardwise.load(done.output)(*inputs)
    accuracy = float((found.argmax(-1) == targets).double().mean())
    assert accuracy == pytest.approx(last["metrics"]["accuracy"], abs=0.06)
