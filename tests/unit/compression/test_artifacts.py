"""The files of a compression, and the loader that opens them without the training code."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from small import finished, make_task, pipeline, trained

from shardwise.api.compression import Artifact, CompressionRow
from shardwise.compression.artifacts import FILES, for_status, write
from shardwise.compression.deployment import deploy
from shardwise.compression.examples import example_inputs
from shardwise.compression.packing import pack, pack_bits
from shardwise.compression.subject import Subject
from shardwise.loading import load, read_tensors, unpack_bits

STEPS = {
    "pruned": [{"prune": {"sparsity": "0.9"}}],
    "pruned, int4": [{"prune": {"sparsity": "0.7"}}, {"quantize": {"bits": 4}}],
    "gptq 3": [{"quantize": {"method": "GPTQ", "bits": 3, "groupSize": 8}}],
    "int8": [{"quantize": {}}],
    "dynamic": [{"quantize": {"activations": "Dynamic"}}],
    "static": [{"quantize": {"activations": "Static"}}],
    "pruned, static": [{"prune": {"sparsity": "0.7"}}, {"quantize": {"activations": "Static"}}],
    "channels": [{"prune": {"pattern": "Channels", "sparsity": "0.5"}}],
}


@pytest.fixture(scope="module")
def task():
    return trained(convolution=True, width=8)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("count", [0, 1, 7, 64])
def test_packed_levels_come_back(bits, count):
    levels = torch.randint(2**bits, (count,)).to(torch.uint8)
    packed = pack_bits(levels, bits)
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(unpack_bits(packed, bits, count), levels)


def test_zeros_come_back_with_their_sign(tmp_path):
    tensors = {
        "float": torch.tensor([[0.0, -0.0, 1.0, 0.0], [0.0, torch.nan, 0.0, 0.0]]),
        "int8": torch.tensor([[0, 0, 0, 0], [0, -3, 0, 0]], dtype=torch.int8),
        "convolution": torch.zeros(4, 3, 2, 2),
        "vector": torch.zeros(9),
    }
    file = tmp_path / "model.safetensors"
    file.write_bytes(pack(Subject(task=make_task()), tensors, {}))
    found = read_tensors(file)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].numpy().tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("case", STEPS)
def test_the_files(task, case, tmp_path):
    machine = finished(pipeline(task, {"steps": STEPS[case]}))
    result = write(machine, tmp_path, title=case)
    onnx = (tmp_path / "model.onnx").stat().st_size
    trained_bytes = result["compression"]["rows"][0]["bytes"]
    assert result["compression"]["notes"] == [
        f"model.onnx is larger than the trained weights ({onnx} bytes, {trained_bytes})"
    ] * (onnx > trained_bytes)
    assert {item["name"] for item in result["artifacts"]} == {
        "model.safetensors",
        "graph.json.gz",
        "model.onnx",
    }
    for item in result["artifacts"]:
        data = (tmp_path / item["name"]).read_bytes()
        assert item["bytes"] == len(data)
        assert item["sha256"] == hashlib.sha256(data).hexdigest()
    before, after = result["compression"]["rows"][0], result["compression"]["rows"][-1]
    assert after["bytes"] < before["bytes"]
    if case in ("int8", "dynamic", "static"):
        assert after["metrics"]["accuracy"] == pytest.approx(
            before["metrics"]["accuracy"], abs=0.05
        )
    assert after["latencyMilliseconds"] > 0
    assert json.loads((tmp_path / "compression.json").read_text()) == result["compression"]
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")

    status = for_status(result)
    assert [CompressionRow.model_validate(row).to_json() for row in status["compression"]] == (
        status["compression"]
    )
    assert status["compression"][0]["metric"].startswith("accuracy 0.")
    assert [Artifact.model_validate(item).to_json() for item in status["artifacts"]] == (
        result["artifacts"]
    )

    inputs = example_inputs(machine.subject.task, 32)
    with torch.no_grad():
        expected = deploy(machine.subject).model.eval()(*inputs)
        found = load(tmp_path)(*inputs)
    torch.testing.assert_close(found, expected)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (theirs,) = session.run(None, {session.get_inputs()[0].name: inputs[0].numpy()})
    assert np.mean(theirs.argmax(1) == expected.argmax(1).numpy()) >= 0.97

    deployed = deploy(machine.subject)
    packed = deployed.packed()
    made = [data for _, make in FILES for data in make(deployed, packed).values()]
    again = [packed, *made]
    assert [hashlib.sha256(data).hexdigest() for data in again] == [
        item["sha256"] for item in result["artifacts"]
    ]


def test_what_was_pruned_is_left_out_of_static_int8_too(task):
    dense = finished(pipeline(task, {"steps": STEPS["static"]})).rows[-1]
    pruned = finished(pipeline(task, {"steps": STEPS["pruned, static"]})).rows[-1]
    assert pruned.bytes < dense.bytes
    assert pruned.note == ""


@pytest.mark.parametrize("case", ["pruned, int4", "pruned, static", "channels"])
def test_a_member_that_copied_the_state_writes_the_same_files(task, case, tmp_path):
    made = finished(pipeline(task, {"steps": STEPS[case]}))
    copied = pipeline(task, {"steps": STEPS[case]})
    copied.load_bytes(made.to_bytes())
    ours, theirs = (
        write(machine, tmp_path / name, title="")["artifacts"]
        for name, machine in (("made", made), ("copied", copied))
    )
    assert [item["sha256"] for item in ours] == [item["sha256"] for item in theirs]


def test_the_loader_needs_no_training_code(task, tmp_path):
    write(finished(pipeline(task, {"steps": STEPS["static"]})), tmp_path, title="")
    code = (
        "import sys, torch\n"
        "for name in ('torchao', 'shardwise.engine', 'shardwise.compression', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "from shardwise.loading import load\n"
        f"print(load({str(tmp_path)!r})(torch.zeros(3, 16)).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.strip() == "torch.Size([3, 4])", done.stderr
