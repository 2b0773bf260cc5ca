"""Compression on this machine: the same files on any number of workers and through kills, and the
guard that watches the accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chaos
import pytest
import torch
import yaml
from runs import EXAMPLES, Run, run

import shardwise
from shardwise.examples import digits

pytestmark = pytest.mark.timeout(1200)

STEPS = 240
"""Of the training of compress-digits; the compression's positions count on from STEPS + 1."""
FILES = {"model.safetensors", "graph.json.gz", "model.onnx"}


def hashes(result):
    return {item["name"]: item["sha256"] for item in result["artifacts"]} | {
        "weights": result["weightsSha256"]
    }


def accuracy_of(folder: Path) -> float:
    """Of the model that the loader opens, on the task's held-out samples."""
    evaluation = digits.task().evaluation
    assert evaluation is not None
    *inputs, targets = evaluation.batch(torch.arange(len(evaluation)))
    with torch.no_grad():
        found = shardwise.load(folder)(*inputs)
    return float((found.argmax(1) == targets).double().mean())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Run:
    """compress-digits on one worker."""
    folder = tmp_path_factory.mktemp("compress-digits")
    done = run(EXAMPLES / "compress-digits.yaml", folder / "out", "--workers", "1")
    assert done.code == 0, done.stderr
    return done


def test_the_files_and_their_table(alone):
    result = alone.result
    assert result["steps"] == STEPS
    assert {item["name"] for item in result["artifacts"]} == FILES
    rows = result["compression"]["rows"]
    assert [row["step"] for row in rows] == ["trained", "prune", "distill", "gptq"]
    assert rows[-1]["bytes"] < rows[0]["bytes"] / 8
    assert rows[0]["metrics"] == result["metrics"], "the first row is the trained model"
    assert result["compression"]["undone"] == ""


def test_the_table_is_shown_at_the_end(alone):
    shown = alone.stdout
    assert "Compression:  done" in shown
    for row in alone.result["compression"]["rows"]:
        assert f"accuracy {row['metrics']['accuracy']:.4f}" in shown
    assert all(item["sha256"] in shown for item in alone.result["artifacts"])
    assert "compress-digits: 100 % step 240/240" in alone.stderr


def test_the_loader_predicts_as_the_table_says(alone):
    rows = alone.result["compression"]["rows"]
    assert accuracy_of(alone.output) == pytest.approx(rows[-1]["metrics"]["accuracy"], abs=0.003)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        # While it gathers for OBS; then rank 0, in an exchange of the distillation.
        ["kill:1@242", "kill:0@275/2"],
        # In an exchange of the fine-tuning, and while it gathers for GPTQ.
        ["kill:0@255/2", "kill:2@294"],
    ],
    ids=["undisturbed", "early", "late"],
)
def test_the_files_are_the_same_on_three_workers(alone, faults):
    done = chaos.run(chaos.example("compress-digits"), workers=3, listed=faults)
    assert done.struck == {fault.replace("/", "-") for fault in faults}
    assert done.ended.report.lost_steps == 0
    assert hashes(done.result) == hashes(alone.result)
    figures = [row["metrics"] for row in done.result["compression"]["rows"]]
    assert figures == [row["metrics"] for row in alone.result["compression"]["rows"]]
    told = done.ended.report.result
    assert told is not None
    assert hashes(told) == hashes(alone.result)
    assert [row["name"] for row in told["compression"]["rows"]][-1] == "gptq"


def written(job: dict[str, Any], folder: Path, workers: int = 1) -> Run:
    folder.mkdir(exist_ok=True)
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    return run(file, folder / "out", "--workers", str(workers))


def guarded(folder: Path, policy: str, *before: dict[str, Any]) -> Run:
    """compress-guard with steps before the one that costs too much."""
    job = yaml.safe_load((EXAMPLES / "compress-guard.yaml").read_text())
    compression = job["spec"]["compression"]
    compression["guard"]["onGuard"] = policy
    compression["steps"] = [*before, *compression["steps"]]
    return written(job, folder)


def compressed_from(file: Path, folder: Path, workers: int = 1) -> Run:
    """What another job left, quantized to three bits."""
    job = yaml.safe_load((EXAMPLES / "compress-digits.yaml").read_text())
    steps = [{"name": "int3", "quantize": {"bits": 3, "method": "GPTQ"}}]
    job["spec"]["compression"] = {"source": {"file": str(file)}, "steps": steps}
    return written(job, folder, workers)


def test_the_guard_fails_the_job_with_its_figures(tmp_path):
    done = guarded(tmp_path, "Fail")
    assert done.code != 0
    assert "step prune brought accuracy from 0.9" in done.stderr + done.stdout
    assert "more than spec.compression.guard.maxAccuracyDrop 0.02" in done.stderr + done.stdout
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_failure_leaves_the_trained_model_and_the_one_before_the_step(tmp_path):
    steps = [{"name": "light", "prune": {"sparsity": "0.2"}}]
    done = guarded(tmp_path, "Fail", *steps)
    assert done.code != 0
    told = done.stderr + done.stdout
    assert "step prune brought accuracy from 0.9" in told
    assert (
        "the job's output keeps the trained model, weights.safetensors, and the one after" in told
    )
    assert "step light, model.safetensors" in told
    rows = json.loads((done.output / "compression.json").read_text())["rows"]
    assert [row["step"] for row in rows] == ["trained", "light"]
    assert accuracy_of(done.output) == pytest.approx(rows[-1]["metrics"]["accuracy"], abs=1e-9)
    # The trained model is whole, and goes on from there.
    again = compressed_from(done.output / "weights.safetensors", tmp_path / "again")
    assert again.code == 0, again.stderr
    assert again.result["compression"]["rows"][0]["metrics"] == rows[0]["metrics"]


def test_what_cannot_be_done_shows_before_the_training(tmp_path):
    job = yaml.safe_load((EXAMPLES / "compress-guard.yaml").read_text())
    job["spec"]["compression"]["steps"] = [{"name": "int8", "quantize": {"ignore": ["nowhere"]}}]
    done = written(job, tmp_path)
    assert done.code != 0
    assert "quantize.ignore: the model has no weight of a layer 'nowhere'" in done.stderr
    assert "it has 0.weight, 3.weight, 5.weight" in done.stderr
    assert not done.output.exists() or not list(done.output.iterdir()), "nothing was trained"


@pytest.mark.parametrize("file", ["weights.safetensors", "model.safetensors"])
def test_the_model_of_another_job(alone, tmp_path, file):
    """What a job trained, or what it compressed, is where the next one begins."""
    found = {
        workers: compressed_from(alone.output / file, tmp_path / str(workers), workers)
        for workers in (1, 2)
    }
    rows = found[1].result["compression"]["rows"]
    before = alone.result["compression"]["rows"]
    place = 0 if file == "weights.safetensors" else -1
    assert rows[0]["metrics"] == before[place]["metrics"]
    assert rows[-1]["bytes"] < rows[0]["bytes"]
    assert hashes(found[1].result) == hashes(found[2].result)
    assert found[1].result["steps"] == 0


def test_the_guard_keeps_the_model_before_the_step(tmp_path):
    done = guarded(tmp_path, "KeepPrevious")
    assert done.code == 0, done.stderr
    table = done.result["compression"]
    assert table["undone"] == "prune"
    before, after = table["rows"]
    assert after["note"] == "taken back by the guard"
    assert after["metrics"]["accuracy"] < before["metrics"]["accuracy"] - 0.02
    assert accuracy_of(done.output) == pytest.approx(before["metrics"]["accuracy"], abs=1e-9)
