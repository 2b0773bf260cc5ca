"""torch.export of a model, with its refusals told in words."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import nn

from shardwise.compression.errors import CompressionError
from shardwise.compression.examples import example_inputs
from shardwise.compression.layers import plain_attention
from shardwise.engine.task import Task


def exported(task: Task, model: nn.Module | None = None) -> torch.export.ExportedProgram:
    """The model's program for any batch size, traced with two training samples.

    Args:
        model: instead of the task's, called with the same arguments.

    Raises:
        CompressionError: torch.export refuses the model.
    """
    inputs = example_inputs(task)
    chosen = task.model if model is None else model
    batch: Any = torch.export.Dim.AUTO
    shapes = tuple({0: batch} for _ in inputs)
    try:
        with plain_attention(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about torch
            if model is None:
                chosen.eval()
            return torch.export.export(
                chosen, inputs, dynamic_shapes=(shapes,) if _star(chosen) else shapes
            )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CompressionError(
            f"torch.export refuses the model: {type(error).__name__}: {first}; take "
            "data-dependent Python out of its forward, or choose a step that does not need it"
        ) from error


def _star(model: nn.Module) -> bool:
    """Whether forward takes its arguments as *args: their shapes are then one tuple."""
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    return kinds == [inspect.Parameter.VAR_POSITIONAL]
