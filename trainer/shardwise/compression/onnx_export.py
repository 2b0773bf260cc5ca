"""The model in ONNX, with integer weights, and its check and timing by ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shardwise.compression.deployment import Deployment
from shardwise.compression.errors import CompressionError
from shardwise.compression.exporting import exported
from shardwise.compression.subject import Quantized

AGREEMENT = 0.99
"""The least part of equal predictions: a rounding tie may fall either way in another runtime."""
REPEATS = 30


def to_onnx(deployed: Deployment) -> bytes:
    """The model's ONNX bytes, the same wherever they are made.

    Raises:
        CompressionError: the model cannot be exported, or a package is missing.
    """
    program = exported(deployed.subject.task, deployed.model)
    try:
        import onnx
    except ImportError as error:
        raise CompressionError(
            "the ONNX export needs the packages onnx, onnxscript and onnxruntime; install "
            "shardwise[compression]"
        ) from error
    try:
        with _quiet():
            made = torch.onnx.export(program, dynamo=True, verbose=False)
            assert made is not None
            model = made.model_proto
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise CompressionError(f"torch.onnx cannot export the model: {first}") from error
    # A member that has copied another's state has them in another order.
    for name, quantized in sorted(deployed.subject.quantized.items()):
        _put_integers(model, name, quantized)
    _forget_origins(model)
    data: bytes = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(onnx.load_from_string(data))
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress and its warnings about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _put_integers(model: Any, name: str, quantized: Quantized) -> None:
    """Give a weight as its levels and a DequantizeLinear, where ONNX has such integers.

    Eight and four bits with one scale an output. Other widths stay in floating point, with the
    levels' values.
    """
    from onnx import TensorProto, helper, numpy_helper

    grid = quantized.grid
    if grid.bits not in (4, 8) or grid.scale.shape[1] != 1:
        return
    places = [i for i, found in enumerate(model.graph.initializer) if found.name == name]
    if not places:
        return  # folded into another tensor
    weight = model.graph.initializer[places[0]]
    shape = list(weight.dims)
    if int(np.prod(shape)) != quantized.levels.numel() or shape[0] != len(quantized.levels):
        return
    kind = TensorProto.UINT8 if grid.bits == 8 else TensorProto.UINT4
    factor = _folded(numpy_helper.to_array(weight), quantized)
    if factor is None:
        return
    levels = quantized.levels.reshape(shape).numpy()
    zero = quantized.grid.zero[:, 0].numpy()
    scale = (quantized.grid.scale[:, 0].double() * factor).float().numpy()
    del model.graph.initializer[places[0]]
    model.graph.initializer.extend(
        [
            _integers(f"{name}.levels", levels, kind),
            numpy_helper.from_array(scale, f"{name}.scale"),
            _integers(f"{name}.zero", zero, kind),
        ]
    )
    node = helper.make_node(
        "DequantizeLinear",
        [f"{name}.levels", f"{name}.scale", f"{name}.zero"],
        [name],
        name=f"{name}.values",
        axis=0,
    )
    model.graph.node.insert(0, node)
    for found in [found for found in model.graph.value_info if found.name == name]:
        model.graph.value_info.remove(found)
    for opset in model.opset_import:
        if opset.domain == "" and opset.version < 21:
            opset.version = 21  # the first with integers of four bits


def _folded(weight: np.ndarray[Any, Any], quantized: Quantized) -> Tensor | None:
    """What each output's weights were multiplied by: the exporter folds batch norms into them.

    float64, shape (outputs,); None where it changed them in another way.
    """
    values = quantized.values().double()
    found = torch.from_numpy(weight.copy()).double().view_as(values)
    squares = values.square().sum(1)
    factor = torch.where(squares > 0, (values * found).sum(1) / squares.clamp(min=1e-300), 1.0)
    close = torch.allclose(values * factor[:, None], found, rtol=1e-5, atol=1e-12)
    return factor if close else None


def _integers(name: str, values: np.ndarray[Any, Any], kind: int) -> Any:
    from onnx import TensorProto, helper

    data = values.reshape(-1)
    if kind == TensorProto.UINT4:
        padded = np.append(data, 0) if len(data) % 2 else data
        data = (padded[0::2] | (padded[1::2] << 4)).astype(np.uint8)
    return helper.make_tensor(name, kind, list(values.shape), data.tobytes(), raw=True)


def _forget_origins(model: Any) -> None:
    """Take out where in the source each node came from: paths differ between machines."""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]


class OnnxModel:
    """An ONNX model that is run on the CPU with as many threads as torch has."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # By default products with weights of four bits round their inputs to eight.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        self._session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
        self._names = [value.name for value in self._session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> Tensor:
        feed = {name: x.numpy() for name, x in zip(self._names, inputs, strict=True)}
        return torch.from_numpy(self._session.run(None, feed)[0])

    def milliseconds(self, inputs: Sequence[Tensor]) -> float:
        """The median time of a forward pass."""
        self(*inputs)
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            self(*inputs)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)


def agreement(deployed: Deployment, model: OnnxModel, inputs: Sequence[Tensor]) -> float:
    """The part of the predictions that are the same in ONNX Runtime as in torch."""
    with torch.no_grad():
        mine = deployed.model(*inputs)
    theirs = model(*inputs)
    return float((mine.argmax(-1) == theirs.argmax(-1)).float().mean())
