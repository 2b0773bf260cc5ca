"""One shard's vector: its gradient, its change of the buffers, its loss."""

from __future__ import annotations

import time

from torch import Tensor

from shardwise.engine import seeds
from shardwise.engine.data import Batch, gather, stretch
from shardwise.engine.flat import FlatModel, padded
from shardwise.engine.plan import Plan
from shardwise.engine.task import Task
from shardwise.engine.usercode import UserCodeError, user_code


class Shards:
    """Computes the vectors that the workers sum.

    Attributes:
        length: of a vector, in elements: parameters, then buffers, the loss, the flag, padding.
        sums: where the buffers end and the loss stands.
        flag: where the flag stands; 0 as computed here.
        data_seconds: spent in reading the data, so far.
    """

    def __init__(self, task: Task, plan: Plan, model: FlatModel) -> None:
        self._task, self._plan, self._model = task, plan, model
        self._order = plan.order(len(task.train))
        self._permutation: tuple[int, Tensor] | None = None
        self.sums = model.parameter_length + model.buffer_length
        self.flag = self.sums + 1
        self.data_seconds = 0.0
        self.length = model.parameter_length + padded(model.buffer_length + 2)

    def indices(self, step: int) -> Tensor:
        """The samples of the step's global batch."""
        epoch = self._order.epoch(step)
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = (epoch, self._order.permutation(epoch))
        return self._order.batch(step, self._permutation[1])

    def compute(self, step: int, shard: int, saved: dict[str, Tensor], out: Tensor) -> None:
        """Write one shard's vector into `out`, shape (length,), at the present parameters.

        Args:
            step: from 0.
            shard: from 0.
            saved: the buffers before the step. The model's own are left as the shard makes them.
            out: uninitialized.

        Raises:
            UserCodeError: the user's code raised, or gave something of the wrong shape.
        """
        model, width = self._model, self._model.parameter_length
        out[model.entries[-1].slice.stop :].zero_()
        indices = self.indices(step)
        places = indices[stretch(len(indices), self._plan.shards, shard)]
        if len(places) == 0:
            out.zero_()
            return
        model.restore_buffers(saved)
        seeds.seed_everything(seeds.derive(self._plan.seed, "shard", step, shard))
        began = time.monotonic()
        with user_code("train"):
            batch = gather(self._task.train, places)
        self.data_seconds += time.monotonic() - began
        loss = self._losses(batch, len(places)).sum() / len(indices)
        with user_code("the gradient of loss"):
            model.gradient(loss, out)
        weight = len(places) / len(indices)
        model.buffer_changes(saved, weight, shard == 0, out[width : self.sums])
        out[self.sums] = loss.detach()

    def _losses(self, batch: Batch, samples: int) -> Tensor:
        with user_code("loss"):
            losses = self._task.loss(self._model.model, batch)
            if losses.shape != (samples,):
                raise UserCodeError(
                    f"loss gave shape {tuple(losses.shape)} for {samples} samples; it must give "
                    f"one value a sample, shape ({samples},): use reduction='none'"
                )
        return losses
