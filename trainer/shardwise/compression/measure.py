"""Before and after: what a model costs and what it is worth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo  # counting needs it, and it takes seconds: they belong to the task's loading
from torch import nn

from shardwise.compression.examples import example_inputs
from shardwise.compression.layers import plain_attention
from shardwise.compression.subject import Subject
from shardwise.engine.task import Task


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a model after a step, or before all of them."""

    step: str
    metrics: dict[str, float]
    parameters: int
    nonzeros: int
    macs: int
    """Multiply-accumulates of one sample's forward pass."""
    bytes: int
    """Of the packed artifact that this model makes."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def count_macs(task: Task, model: nn.Module) -> int:
    """Multiply-accumulates of the matrix products of one sample."""
    from torch.utils.flop_counter import FlopCounterMode

    inputs = example_inputs(task, samples=1)
    counter = FlopCounterMode(display=False)
    with plain_attention(), torch.no_grad(), counter:
        model.eval()(*inputs)
    return int(counter.get_total_flops()) // 2


def count_parameters(subject: Subject) -> tuple[int, int]:
    """All parameters, and those that are not zero."""
    tensors = list(subject.parameters().values())
    total = sum(tensor.numel() for tensor in tensors)
    return total, sum(int(torch.count_nonzero(tensor)) for tensor in tensors)
