"""The ONNX file holds integers for every quantized weight, multiplies them, and gives the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from small import finished, make_task, pipeline
from torch import nn

from shardwise.compression.deployment import deploy
from shardwise.compression.examples import example_inputs
from shardwise.compression.onnx_export import AGREEMENT, OnnxModel, to_onnx

INTEGERS = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT8: 8,
}


class Attentive(nn.Module):
    """Layers whose inputs have two and three dimensions: their weights are exported differently."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(16, 24)
        self.block = nn.TransformerEncoderLayer(24, 2, 50, batch_first=True, dropout=0.0)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        return self.head(self.block(self.up(x.view(-1, 4, 4).repeat(1, 1, 4))).mean(1))


def attentive():
    torch.manual_seed(1)
    return make_task(model=Attentive())


STEPS = {
    "int8": ({}, 8),
    "dynamic": ({"activations": "Dynamic"}, 8),
    "int4": ({"bits": 4}, 4),
    "int4, groups": ({"bits": 4, "groupSize": 8}, 4),
    "int4, groups that do not fit": ({"bits": 4, "groupSize": 10}, 4),
    "gptq 3, groups": ({"method": "GPTQ", "bits": 3, "groupSize": 8}, 4),
    "int2": ({"bits": 2, "groupSize": 8}, 4),
    "int8, groups": ({"groupSize": 8}, 8),
}


@pytest.mark.parametrize("kind", ["attention", "convolution"])
@pytest.mark.parametrize("case", STEPS)
def test_weights_are_integers_and_the_results_the_same(case, kind):
    settings, bits = STEPS[case]
    task = attentive() if kind == "attention" else make_task(convolution=True, width=8)
    machine = finished(pipeline(task, {"steps": [{"quantize": settings}]}))
    deployed = deploy(machine.subject)
    data = to_onnx(deployed)
    stored = [(list(t.dims), t.data_type) for t in onnx.load_from_string(data).graph.initializer]
    for name, quantized in machine.subject.quantized.items():
        shape = list(machine.subject.parameters()[name].shape)
        kinds = {found for dims, found in stored if sorted(dims) == sorted(shape)}
        if len(shape) == 4 and quantized.grid.scale.shape[1] > 1:
            assert kinds == {onnx.TensorProto.FLOAT}, "ONNX has no scales for a part of a patch"
        else:
            assert onnx.TensorProto.FLOAT not in kinds, name
            assert [INTEGERS[found] for found in kinds] == [bits], name
    inputs = example_inputs(task, 32)
    with torch.no_grad():
        expected = deployed.model.eval()(*inputs)
    torch.testing.assert_close(OnnxModel(data)(*inputs), expected, rtol=1e-3, atol=1e-4)


def test_rounded_inputs_are_multiplied_as_integers():
    machine = finished(pipeline(attentive(), {"steps": [{"quantize": STEPS["dynamic"][0]}]}))
    model = onnx.load_from_string(to_onnx(deploy(machine.subject)))
    kinds = [node.op_type for node in model.graph.node]
    # up, linear1, linear2 and head; attention's own products see what is not rounded.
    assert kinds.count("MatMulInteger") == 4
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    assert onnx.TensorProto.INT8 not in {t.data_type for t in model.graph.initializer}


def test_a_batch_norm_that_was_folded_in_leaves_integers():
    machine = finished(
        pipeline(make_task(convolution=True, width=8), {"steps": [{"quantize": {}}]})
    )
    model = onnx.load_from_string(to_onnx(deploy(machine.subject)))
    assert "BatchNormalization" not in [node.op_type for node in model.graph.node]
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(t.dims)) for t in floats) <= 32


def test_static_weights_are_unsigned_and_the_results_the_same():
    """Products of unsigned and signed saturate on a CPU without VNNI, whatever made this one."""
    task = make_task(convolution=True, width=32)
    machine = finished(pipeline(task, {"steps": [{"quantize": {"activations": "Static"}}]}))
    deployed = deploy(machine.subject)
    data = to_onnx(deployed)
    model = onnx.load_from_string(data)
    stored = [tensor.data_type for tensor in model.graph.initializer]
    assert onnx.TensorProto.INT8 not in stored
    assert stored.count(onnx.TensorProto.UINT8) >= 3
    inputs = example_inputs(task, 64)
    with torch.no_grad():
        expected = deployed.model(*inputs)
    agree = OnnxModel(data)(*inputs).argmax(-1) == expected.argmax(-1)
    assert float(agree.float().mean()) >= AGREEMENT
