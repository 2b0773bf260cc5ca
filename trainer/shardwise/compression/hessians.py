"""H = Σ xᵀx of what flows into each weight: what OBS pruning and GPTQ solve with.

Summed in float64 over fixed micro-batches and over shards in the tree's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from shardwise.compression.errors import CompressionError
from shardwise.compression.layers import Weight, caught_inputs
from shardwise.compression.reduction import Samples, reduce_shards
from shardwise.engine.group import Group
from shardwise.engine.task import Task
from shardwise.engine.usercode import user_code

ROUND_BYTES = 64 * 2**20
"""Hessians gathered by one pass over the samples; weights beyond it wait for the next pass."""


def rounds(weights: Mapping[str, Weight]) -> tuple[tuple[str, ...], ...]:
    """The weights in the model's order, cut where a round's Hessians exceed ROUND_BYTES."""
    cut: list[list[str]] = [[]]
    filled = 0
    for name, weight in weights.items():
        size = weight.matrix().shape[1] ** 2 * 8
        if cut[-1] and filled + size > ROUND_BYTES:
            cut.append([])
            filled = 0
        cut[-1].append(name)
        filled += size
    return tuple(map(tuple, cut))


def check_solvable(weights: Mapping[str, Weight]) -> None:
    """Raises CompressionError: the inputs of a weight's products cannot be gathered."""
    for name, weight in weights.items():
        problem = ""
        if weight.groups > 1:
            problem = f"a convolution in {weight.groups} groups"
        elif weight.parameter.dim() == 5:
            problem = "a three-dimensional convolution"
        if problem:
            raise CompressionError(
                f"layer {name}: {problem} cannot be solved for; add it to ignore, or choose a "
                "method without data"
            )


def gather_hessians(
    group: Group, task: Task, samples: Samples, weights: Mapping[str, Weight], names: Sequence[str]
) -> dict[str, Tensor]:
    """The Hessian of each named weight: float64, shape (inputs, inputs), divided by its rows.

    Raises:
        CompressionError: a weight saw no input.
        GroupError: a peer is gone; nothing has changed.
    """
    chosen = {name: weights[name] for name in names}
    widths = {name: weight.matrix().shape[1] for name, weight in chosen.items()}
    length = sum(width * width + 1 for width in widths.values())

    def compute(shard: int) -> Tensor:
        vector = torch.zeros(length, dtype=torch.float64)
        views = dict(_views(vector, widths))

        def take(name: str, rows: Tensor) -> None:
            matrix, count = views[name]
            exact = rows.to(torch.float64)
            matrix.addmm_(exact.T, exact)
            count.add_(len(rows))

        task.model.eval()
        for _, batch in samples.batches(shard):
            with user_code("loss"), caught_inputs(chosen, take):
                task.loss(task.model, batch)
        return vector

    memo = samples.memo("hessians", task.model, detail=" ".join(names))
    total = reduce_shards(group, samples.shards, length, torch.float64, compute, memo)
    hessians = {}
    for name, (matrix, count) in _views(total, widths):
        if float(count) == 0.0:
            raise CompressionError(
                f"layer {name}: no calibration sample flows through it; add it to ignore"
            )
        hessians[name] = matrix / count
    return hessians


def _views(
    vector: Tensor, widths: Mapping[str, int]
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    offset = 0
    for name, width in widths.items():
        end = offset + width * width
        yield name, (vector[offset:end].view(width, width), vector[end : end + 1])
        offset = end + 1
