"""Evaluation on held-out samples, cut into the same number of shards and summed in the same tree.

Each shard is a fixed stretch of the samples, taken in fixed batches; its sums are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shardwise.engine import seeds
from shardwise.engine.data import gather, stretch
from shardwise.engine.exchange import TreeSum
from shardwise.engine.flat import BLOCK
from shardwise.engine.group import Group
from shardwise.engine.plan import Plan
from shardwise.engine.task import Task
from shardwise.engine.usercode import UserCodeError, user_code


def evaluate(task: Task, plan: Plan, group: Group, step: int) -> dict[str, float]:
    """The mean loss and the mean of each metric over the evaluation samples.

    Every worker of the group calls this at the same step; rank 0, which has the first shard and so
    knows all metrics' names, gets all of them.

    Raises:
        UserCodeError: the user's code raised, or a metric has the wrong shape.
        GroupError: a peer is gone.
    """
    assert task.evaluation is not None
    samples = len(task.evaluation)
    exchange = TreeSum(group, plan.shards, BLOCK, torch.float64)
    names: tuple[str, ...] = ("loss",)
    task.model.eval()
    for shard in exchange.block:
        place = stretch(samples, plan.shards, shard)
        seeds.seed_everything(seeds.derive(plan.seed, "evaluation", step, shard))
        sums = exchange.leaf().zero_()
        for first in range(place.start, place.stop, task.evaluation_batch_size):
            stop = min(first + task.evaluation_batch_size, place.stop)
            figures = _figures(task, torch.arange(first, stop))
            names = ("loss", *sorted(figures.keys() - {"loss"}))
            for index, name in enumerate(names):
                sums[index] += figures[name].to(torch.float64).sum()
        exchange.push(sums)
    total = torch.zeros(BLOCK, dtype=torch.float64)
    exchange.reduce(total)
    exchange.gather(total)
    return {name: float(total[index]) / samples for index, name in enumerate(names)}


@torch.no_grad()
def _figures(task: Task, indices: Tensor) -> dict[str, Tensor]:
    with user_code("evaluation"):
        batch = gather(task.evaluation, indices) if task.evaluation is not None else None
    with user_code("loss"):
        figures = {"loss": task.loss(task.model, batch)}
    if task.metrics is not None:
        with user_code("metrics"):
            figures |= dict(task.metrics(task.model, batch))
    for name, values in figures.items():
        if values.shape != indices.shape:
            raise UserCodeError(
                f"metric {name!r} gave shape {tuple(values.shape)} for {len(indices)} samples; "
                f"it must give one value a sample, shape ({len(indices)},)"
            )
    return figures
