"""Weights from a file: another job's weights.safetensors or model.safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from shardwise.compression.errors import CompressionError
from shardwise.loading import read_tensors


@torch.no_grad()
def load_weights(model: nn.Module, file: str, field: str) -> None:
    """Set all of the model's parameters and buffers from a file that a job wrote.

    Args:
        field: the setting that names the file, for messages.

    Raises:
        CompressionError: the file cannot be read, or is another model's.
    """
    try:
        tensors = read_tensors(Path(file))
    except (OSError, ValueError) as error:
        raise CompressionError(
            f"{field}: cannot read {file}: {error}; name a safetensors file that all workers see"
        ) from error
    known = model.state_dict()
    missing, unknown = sorted(known.keys() - tensors.keys()), sorted(tensors.keys() - known.keys())
    wrong = [n for n in known if n in tensors and known[n].shape != tensors[n].shape]
    for names, problem in (
        (missing, "lacks"),
        (unknown, "has, and the model has not,"),
        (wrong, "has in another shape"),
    ):
        if names:
            raise CompressionError(
                f"{field}: {file} {problem} {names[0]!r}"
                f"{f' and {len(names) - 1} more' if len(names) > 1 else ''}; it is another "
                "model's: give the parameters that it was trained with"
            )
    for name, tensor in known.items():
        tensor.copy_(tensors[name])
