"""How much faster compressed models are in ONNX Runtime, with the bounds that were promised.

    pytest tests/benchmarks/test_compression.py -s

Not a part of `make test`: these are times. One thread, batches of 64 images, the least of many
passes, taken in turns; the seeds are fixed. The load of the machine is printed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from reference import compressed, convolutional, data, trained

from shardwise.compression.deployment import deploy
from shardwise.compression.onnx_export import OnnxModel, to_onnx

pytestmark = pytest.mark.timeout(1800)
ROUNDS = 60


def milliseconds(models, x):
    """The least time of each model."""
    times = {name: [] for name in models}
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, model in models.items():
                start = time.perf_counter()
                model(x)
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(found) for name, found in times.items()}


def served(machine):
    """What a pass takes by step in ONNX Runtime, and in eager torch for the trained model."""
    x = data()["evaluation"].batch(torch.arange(64))[0]
    trained_model = machine.models["trained"].model.eval()
    models = {name: OnnxModel(to_onnx(deploy(found))) for name, found in machine.models.items()}
    found = milliseconds({"eager": trained_model} | models, x)
    text = ", ".join(f"{name} {value:.2f} ms" for name, value in found.items())
    print(f"{text}; load {os.getloadavg()[0]:.1f}")
    return found


def test_static_int8():
    if "vnni" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("the bound is for CPUs with VNNI")
    found = served(compressed(trained(convolutional, 2), {"quantize": {"activations": "Static"}}))
    assert found["eager"] >= 1.5 * found["step-0"]
    assert found["trained"] >= 1.5 * found["step-0"]


def test_half_of_the_channels():
    prune = {"pattern": "Channels", "sparsity": "0.5"}
    found = served(compressed(trained(convolutional, 2), {"prune": prune}))
    assert found["step-0"] <= 0.6 * found["trained"]
