"""How much each weight matters: the scores that unstructured pruning orders weights by.

- magnitude: |w|. Needs no data.
- taylor: |w · Σ g|, the first-order change of the mean loss when the weight goes.
- fisher: w² · Σ g², g the gradient of one micro-batch's mean loss: the diagonal of the empirical
  Fisher information, which depends on the micro-batches' size, hence fixed.

Gradients are summed in float64 over fixed micro-batches and over shards in the tree's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from shardwise.compression.layers import Weight
from shardwise.compression.reduction import Samples, reduce_shards
from shardwise.engine.group import Group
from shardwise.engine.task import Task
from shardwise.engine.usercode import user_code

Score = Literal["magnitude", "taylor", "fisher"]


def magnitudes(weights: Mapping[str, Weight]) -> dict[str, Tensor]:
    """|w| of each weight, as a matrix in float64."""
    return {name: weight.matrix().to(torch.float64).abs() for name, weight in weights.items()}


def gradient_scores(
    group: Group,
    task: Task,
    samples: Samples,
    weights: Mapping[str, Weight],
    score: Literal["taylor", "fisher"],
) -> dict[str, Tensor]:
    """Taylor or Fisher scores of each weight, as a matrix in float64.

    Raises:
        GroupError: a peer is gone; nothing has changed.
    """
    parameters = [weight.parameter for weight in weights.values()]
    sizes = [parameter.numel() for parameter in parameters]

    def compute(shard: int) -> Tensor:
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        task.model.eval()
        for place, batch in samples.batches(shard):
            with user_code("loss"):
                loss = task.loss(task.model, batch)
            with user_code("the gradient of loss"):
                found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
            count = place.stop - place.start
            for part, gradient in zip(torch.split(total, sizes), found, strict=True):
                if gradient is None:
                    continue
                flat = gradient.reshape(-1).to(torch.float64)
                part.add_(flat if score == "taylor" else (flat / count).square_())
        return total

    memo = samples.memo(f"scores {score}", task.model, detail=" ".join(weights))
    total = reduce_shards(group, samples.shards, sum(sizes), torch.float64, compute, memo)
    scores = {}
    for (name, weight), part in zip(weights.items(), torch.split(total, sizes), strict=True):
        w = weight.matrix().to(torch.float64)
        summed = part.view_as(w)
        scores[name] = (w * summed).abs() if score == "taylor" else w.square() * summed
    return scores
