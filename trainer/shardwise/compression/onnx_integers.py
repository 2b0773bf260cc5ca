"""Integer weights in an ONNX model, and integer products where the inputs are rounded as well.

torch.onnx writes weights in floating point, some transposed and under names of its own. They are
found by their values, which follow from the levels, and become levels with a DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shardwise.compression.subject import Quantized

OPSET = 21
"""The first with integers of four bits, and with scales for blocks."""
MIDDLE = 128
"""The level of eight bits that stands for 0."""


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A weight that was found: its levels and scales, laid out as the model has the weight.

    Attributes:
        axis: that of the scales; of the blocks, where there are any.
        block: neighbours along the axis that share a scale; 0 for all of them.
        outputs: the axis of the outputs.
    """

    levels: Tensor
    scale: Tensor
    zero: Tensor
    axis: int
    block: int
    outputs: int


def put_integers(model: Any, weights: Mapping[str, Quantized]) -> None:
    """Give every weight as integers: four bits in four, up to eight in eight.

    A weight that was folded into something else, and a convolution whose inputs have several
    scales, stay in floating point, with the levels' values.
    """
    placed: dict[str, _Placed] = {}
    # A member that has copied another's state has them in another order.
    for name, quantized in sorted(weights.items()):
        found = _find(model, name, quantized)
        if found is not None:
            placed[found[0]] = found[1]
            _replace(model, *found, bits=quantized.grid.bits)
    if not placed:
        return
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, OPSET)
    _multiply_integers(model, placed)


def _find(model: Any, name: str, quantized: Quantized) -> tuple[str, _Placed] | None:
    """The initializer that holds a weight, and how; None where there is none."""
    from onnx import TensorProto, numpy_helper

    grid, levels = quantized.grid, quantized.levels
    groups = grid.scale.shape[1]
    values = quantized.values().double()
    for tensor in model.graph.initializer:
        shape = list(tensor.dims)
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(shape)) != levels.numel():
            continue
        straight = tensor.name == name and shape[0] == levels.shape[0]
        turned = tensor.name != name and shape == list(levels.shape[::-1])
        if (not straight and not turned) or (straight and groups > 1 and len(shape) > 2):
            continue
        found = torch.from_numpy(numpy_helper.to_array(tensor).copy()).double()
        found = found.view_as(values) if straight else found.T
        factor = _factor(found, values)
        if factor is None or (turned and not torch.equal(found, values)):
            continue
        scale, zero = (grid.scale.double() * factor[:, None]).float(), grid.zero
        if groups == 1:
            scale, zero = scale[:, 0], zero[:, 0]
        elif turned:
            scale, zero = scale.T, zero.T
        outputs = 0 if straight else 1
        return tensor.name, _Placed(
            levels=levels.view(shape) if straight else levels.T.contiguous(),
            scale=scale.contiguous(),
            zero=zero.contiguous(),
            axis=outputs if groups == 1 else 1 - outputs,
            block=0 if groups == 1 else grid.group_size,
            outputs=outputs,
        )
    return None


def _factor(found: Tensor, values: Tensor) -> Tensor | None:
    """What each output's weights were multiplied by: the exporter folds batch norms into them.

    float64, shape (outputs,); None where it changed them in another way.
    """
    squares = values.square().sum(1)
    factor = torch.where(squares > 0, (values * found).sum(1) / squares.clamp(min=1e-300), 1.0)
    close = torch.allclose(values * factor[:, None], found, rtol=1e-5, atol=1e-12)
    return factor if close else None


def _replace(model: Any, name: str, placed: _Placed, *, bits: int) -> None:
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.UINT4 if bits <= 4 else TensorProto.UINT8
    _drop_initializer(model, name)
    model.graph.initializer.extend(
        [
            _integers(f"{name}.levels", placed.levels.numpy(), kind),
            numpy_helper.from_array(placed.scale.numpy(), f"{name}.scale"),
            _integers(f"{name}.zero", placed.zero.numpy(), kind),
        ]
    )
    blocks: dict[str, Any] = {"block_size": placed.block} if placed.block else {}
    node = helper.make_node(
        "DequantizeLinear",
        [f"{name}.levels", f"{name}.scale", f"{name}.zero"],
        [name],
        name=f"{name}.values",
        axis=placed.axis,
        **blocks,
    )
    model.graph.node.insert(0, node)
    for found in [found for found in model.graph.value_info if found.name == name]:
        model.graph.value_info.remove(found)


def _integers(name: str, values: np.ndarray[Any, Any], kind: int) -> Any:
    from onnx import TensorProto, helper

    data = values.reshape(-1)
    if kind == TensorProto.UINT4:
        padded = np.append(data, 0) if len(data) % 2 else data
        data = (padded[0::2] | (padded[1::2] << 4)).astype(np.uint8)
    return helper.make_tensor(name, kind, list(values.shape), data.tobytes(), raw=True)


def _multiply_integers(model: Any, placed: Mapping[str, _Placed]) -> None:
    """Where a product's inputs are rounded row by row, multiply the integers themselves.

    x = q · s by row, w = l · t by output: x · w = (q · l) · s · t, in which q · l is exact.
    """
    made = {output: node for node in model.graph.node for output in node.output}
    for node in list(model.graph.node):
        if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in placed:
            continue
        weight = placed[node.input[1]]
        rounded = _rounded(made, node.input[0])
        if rounded is None or weight.block or not bool((weight.zero == MIDDLE).all()):
            continue
        if weight.outputs != (0 if node.op_type == "Gemm" else 1):
            continue
        place = list(model.graph.node).index(node)
        new = _products(model, node, weight, *rounded)
        model.graph.node.remove(node)
        for offset, added in enumerate(new):
            model.graph.node.insert(place + offset, added)
    _drop_unused(model)


def _rounded(made: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """What stands for a rounded input: the integers (as floats) and their scale by row."""
    product = made.get(name)
    if product is None or product.op_type != "Mul":
        return None
    clipped = made.get(product.input[0])
    if clipped is None or clipped.op_type != "Clip":
        return None
    inner = made.get(clipped.input[0])
    return None if inner is None or inner.op_type != "Round" else tuple(product.input)


def _products(model: Any, node: Any, weight: _Placed, integers: str, scale: str) -> Sequence[Any]:
    from onnx import TensorProto, helper, numpy_helper

    prefix = f"{node.output[0]}."
    levels = weight.levels.T if weight.outputs == 0 else weight.levels
    constants: dict[str, np.ndarray[Any, Any]] = {
        "middle": np.array(MIDDLE, np.float32),
        "zero": np.array(MIDDLE, np.uint8),
        "weight": levels.contiguous().numpy(),
        "scale": weight.scale.numpy(),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(value, prefix + name) for name, value in constants.items()
    )

    def step(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, [output], name=f"{output}.{kind}", **attributes)

    p = prefix
    nodes = [
        # Unsigned by unsigned: ONNX Runtime's product of unsigned and signed saturates in 16 bits
        # on CPUs without VNNI, and there gives other results.
        step("Add", [integers, f"{p}middle"], f"{p}shifted"),
        step("Cast", [f"{p}shifted"], f"{p}levels", to=TensorProto.UINT8),
        step("MatMulInteger", [f"{p}levels", f"{p}weight", f"{p}zero", f"{p}zero"], f"{p}sums"),
        step("Cast", [f"{p}sums"], f"{p}exact", to=TensorProto.FLOAT),
        step("Mul", [f"{p}exact", scale], f"{p}rows"),
    ]
    bias = node.input[2] if len(node.input) > 2 else ""
    last = f"{p}columns" if bias else node.output[0]
    nodes.append(step("Mul", [f"{p}rows", f"{p}scale"], last))
    if bias:
        nodes.append(step("Add", [last, bias], node.output[0]))
    return nodes


def unsign(model: Any) -> None:
    """Write the weights of signed eight bits as unsigned ones, with the same values.

    ONNX Runtime's products of unsigned inputs and signed weights saturate in 16 bits on CPUs
    without VNNI; those of unsigned ones are exact everywhere.
    """
    from onnx import TensorProto, numpy_helper

    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    signed: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3:
            continue
        pair = [initializers.get(name) for name in (node.input[0], node.input[2])]
        if all(tensor is not None and tensor.data_type == TensorProto.INT8 for tensor in pair):
            signed |= {node.input[0], node.input[2]}
    for name in sorted(signed):
        tensor = initializers[name]
        values = numpy_helper.to_array(tensor).astype(np.int16) + MIDDLE
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.uint8), name))
    for found in [found for found in model.graph.value_info if found.name in signed]:
        model.graph.value_info.remove(found)


def _drop_unused(model: Any) -> None:
    """Take out nodes and initializers whose results nobody reads any more."""
    wanted = {value.name for value in model.graph.output}
    for node in reversed(list(model.graph.node)):
        if wanted.isdisjoint(node.output):
            model.graph.node.remove(node)
        else:
            wanted.update(node.input)
    for name in [tensor.name for tensor in model.graph.initializer if tensor.name not in wanted]:
        _drop_initializer(model, name)


def _drop_initializer(model: Any, name: str) -> None:
    (place,) = (i for i, tensor in enumerate(model.graph.initializer) if tensor.name == name)
    del model.graph.initializer[place]
