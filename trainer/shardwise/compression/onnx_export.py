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

import torch
from torch import Tensor

from shardwise.compression.deployment import Deployment
from shardwise.compression.errors import CompressionError
from shardwise.compression.exporting import exported
from shardwise.compression.onnx_integers import put_integers, unsign

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
    put_integers(model, deployed.subject.quantized)
    unsign(model)
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
