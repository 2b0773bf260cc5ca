"""Evaluation on held-out samples, cut into the same number of shards and summed in the same tree.

Each shard is a fixed stretch of the samples, taken in fixed batches; its sums are float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shardwise.engine import seeds
from shardwise.engine.activity import Beat
from shardwise.engine.data import gather, stretch
from shardwise.engine.exchange import TreeSum
from shardwise.engine.flat import BLOCK
from shardwise.engine.plan import Plan
from shardwise.engine.task import Task
from shardwise.engine.usercode import UserCodeError, user_code


class Evaluation:
    """The evaluation of a task that has samples for it."""

    LENGTH = BLOCK
    """Elements of a shard's vector: the sum of each figure, in order of their names."""

    def __init__(self, task: Task, plan: Plan) -> None:
        assert task.evaluation is not None
        self._task, self._plan = task, plan
        with user_code("len(evaluation)"):
            self._samples = len(task.evaluation)
        self._names: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """The names of the figures, from one sample.

        Raises:
            UserCodeError: the user's code raised.
        """
        self._task.model.eval()
        self._named(_figures(self._task, torch.arange(1)))
        return self._names

    def run(self, exchange: TreeSum, step: int, beat: Beat) -> dict[str, float]:
        """The mean loss and the mean of each metric over the samples.

        Every worker of the group calls this at the same step, and gets all of them.

        Raises:
            UserCodeError: the user's code raised, or a metric has the wrong shape.
            GroupError: a peer is gone, or the beat said so.
        """
        self._task.model.eval()
        for shard in exchange.todo:
            beat("computing")
            exchange.push(self._sums(step, shard, exchange.leaf().zero_(), beat))
        if not self._names:  # this worker had no sample
            self._named(_figures(self._task, torch.arange(1)))
        total = torch.zeros(self.LENGTH, dtype=torch.float64)
        exchange.reduce(total)
        exchange.gather(total)
        return {name: float(total[i]) / self._samples for i, name in enumerate(self._names)}

    def _sums(self, step: int, shard: int, out: Tensor, beat: Beat) -> Tensor:
        place = stretch(self._samples, self._plan.shards, shard)
        seeds.seed_everything(seeds.derive(self._plan.seed, "evaluation", step, shard))
        size = self._task.evaluation_batch_size
        for first in range(place.start, place.stop, size):
            if first > place.start:
                beat("computing")
            figures = _figures(self._task, torch.arange(first, min(first + size, place.stop)))
            for index, values in enumerate(self._named(figures)):
                out[index] += values.to(torch.float64).sum()
        return out

    def _named(self, figures: Mapping[str, Tensor]) -> list[Tensor]:
        """The figures in order of their names, which are the same in every batch."""
        names = ("loss", *sorted(figures.keys() - {"loss"}))
        if self._names and names != self._names:
            raise UserCodeError(f"metrics gave {names[1:]}, and {self._names[1:]} before")
        if len(names) > self.LENGTH:
            raise UserCodeError(f"metrics gave {len(names) - 1} figures, over {self.LENGTH - 1}")
        self._names = names
        return [figures[name] for name in names]


def figure_names(task: Task) -> list[str]:
    """What an evaluation of the task tells, in order; found with its first sample."""
    before = task.model.training
    task.model.eval()
    try:
        return sorted({"loss"} | _figures(task, torch.arange(1)).keys())
    finally:
        task.model.train(before)


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
