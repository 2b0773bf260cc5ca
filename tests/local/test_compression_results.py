"""Published results of compression, on Fashion-MNIST, one seed, with the bounds that were promised.

    pytest tests/local/test_compression_results.py -s

prints every table. What takes time rather than accuracy is in tests/benchmarks/test_compression.py.
"""

from __future__ import annotations

import pytest
from reference import accuracies, compressed, convolutional, lenet, trained

pytestmark = pytest.mark.timeout(1800)

HAN = [
    {"name": "1", "sparsity": "0.92"},
    {"name": "3", "sparsity": "0.91"},
    {"name": "5", "sparsity": "0.74"},
]
"""What goes of each layer: Han, Pool, Tran and Dally 2015, table 4."""


def test_han_2015_twelve_times():
    prune = {"prune": {"sparsity": "0.9", "layers": HAN}}
    task = trained(lenet, 8)
    before, unretrained = accuracies(compressed(task, prune))
    machine = compressed(task, prune | {"fineTune": {"epochs": 6, "learningRate": "0.02"}})
    kept = sum(int(mask.sum()) for mask in machine.subject.masks.values())
    print(f"{266_200 / kept:.1f}x fewer weights")
    assert 266_200 / kept >= 12.2
    assert before - unretrained >= 5.0
    assert before - accuracies(machine)[-1] <= 0.8


def test_gptq_beats_rounding_at_two_bits():
    task = trained(lenet, 8)
    nearest = accuracies(compressed(task, {"quantize": {"bits": 2}}))[-1]
    solved = accuracies(compressed(task, {"quantize": {"bits": 2, "method": "GPTQ"}}))[-1]
    assert solved >= nearest + 2.0


def test_obs_beats_magnitude_without_retraining():
    task = trained(lenet, 8)
    found = {}
    for method in ("Magnitude", "OBS"):
        prune = {"method": method, "sparsity": "0.9", "scope": "Uniform"}
        found[method] = accuracies(compressed(task, {"prune": prune}))[-1]
        fours = {"method": method, "pattern": "TwoOfFour"}
        found[f"{method} 2:4"] = accuracies(compressed(task, {"prune": fours}))[-1]
    assert found["OBS"] >= found["Magnitude"] + 3.0
    assert found["OBS 2:4"] >= found["Magnitude 2:4"]


def test_a_students_soft_targets_on_three_percent_of_the_data():
    teacher = trained(convolutional, 2)
    found = {}
    for alpha in ("0", "0.9"):
        distill = {"student": {}, "alpha": alpha, "temperature": "4", "samples": 1800}
        tune = {"epochs": 40, "learningRate": "0.02"}
        machine = compressed(teacher, {"distill": distill, "fineTune": tune})
        found[alpha] = accuracies(machine)[-1]
    assert found["0.9"] >= found["0"] + 1.0


def test_static_int8():
    before, after = compressed(
        trained(convolutional, 2), {"quantize": {"activations": "Static"}}
    ).rows
    assert after.bytes <= 0.30 * before.bytes
    assert abs(before.metrics["accuracy"] - after.metrics["accuracy"]) <= 0.005


def test_half_of_the_channels():
    tune = {"epochs": 1, "learningRate": "0.002"}
    prune = {"pattern": "Channels", "sparsity": "0.5"}
    before, after = compressed(trained(convolutional, 2), {"prune": prune, "fineTune": tune}).rows
    assert after.macs <= 0.35 * before.macs
    assert after.bytes < before.bytes
