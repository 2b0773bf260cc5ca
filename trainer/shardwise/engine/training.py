"""The training loop's body: one step, one evaluation, on whatever group there is.

A step: for each shard of the own block, seed, forward, gradient, push into the tree; finish the
sum; clip; update; gather. Nothing of the state changes before the step's last exchange is
complete, so that a step which a lost peer interrupts can be tried again.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shardwise.engine import seeds
from shardwise.engine.clip import block_squares, clip_factor
from shardwise.engine.data import Batch, gather, stretch
from shardwise.engine.evaluation import evaluate
from shardwise.engine.exchange import TreeSum
from shardwise.engine.flat import BLOCK, FlatModel, padded
from shardwise.engine.group import Alone, Group, GroupError
from shardwise.engine.optimizers import zero_state
from shardwise.engine.plan import Plan
from shardwise.engine.task import Task
from shardwise.engine.usercode import UserCodeError, user_code


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step tells: the mean loss of its batch, its samples, the rate it used."""

    loss: float
    samples: int
    learning_rate: float


class Training:
    """One task under optimization, and its state: step, parameters, buffers, optimizer state.

    Call `join` with a group, then `step` until `done`. All workers of a group make the same calls.
    """

    def __init__(self, task: Task, plan: Plan) -> None:
        self.task, self.plan = task, plan
        with user_code("the model"):
            self.model = FlatModel(task.model)
        with user_code("len(train)"):
            self.order = plan.order(len(task.train))
        self.total_steps = plan.total_steps(self.order)
        self.steps_done = 0
        self._permutation: tuple[int, Tensor] | None = None
        # The exchanged vector: parameters, then buffers, the loss, the number of samples.
        self._sums = self.model.parameter_length + self.model.buffer_length
        self._length = self.model.parameter_length + padded(self.model.buffer_length + 2)
        self._total = torch.zeros(self._length, dtype=self.model.dtype)
        self.group: Group = Alone()
        self.join(self.group)

    def join(self, group: Group) -> None:
        """Take part in a group. After the first step, only in the same place of one of equal size.

        Raises:
            GroupError: the group has another shape, and the optimizer state is cut for the old one.
        """
        same = (group.rank, group.size) == (self.group.rank, self.group.size)
        if self.steps_done > 0 and not same:
            raise GroupError(f"a group of {group.size} cannot go on from one of {self.group.size}")
        self.group = group
        self.exchange = TreeSum(group, self.plan.shards, self._length, self.model.dtype)
        width = self.model.parameter_length
        # Each worker's part of θ: its part of the exchanged vector, as far as that is parameters.
        self._parts = [
            slice(min(part.start, width), min(part.stop, width)) for part in self.exchange.parts
        ]
        if self.steps_done == 0:
            self._state = zero_state(self.task.optimizer, self.model.parameters[self._owned])

    @property
    def _owned(self) -> slice:
        """The part of θ that this worker updates: all of it, unless parameters are partitioned."""
        if self.plan.partition == "parameters":
            return self._parts[self.group.rank]
        return slice(0, self.model.parameter_length)

    @property
    def done(self) -> bool:
        return self.steps_done >= self.total_steps

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation follows the step that was just done."""
        return self.task.evaluation is not None and self.plan.evaluates_after(
            self.steps_done, self.order, self.total_steps
        )

    def step(self) -> StepResult:
        """Do one step with the group.

        Raises:
            UserCodeError: the user's code raised, or the loss is not finite.
            GroupError: a peer is gone; the step has not happened.
        """
        step, model = self.steps_done, self.model
        indices = self._indices(step)
        saved = model.saved_buffers()
        self.exchange.reset()
        model.model.train()
        for shard in self.exchange.block:
            self._compute_shard(step, shard, indices, saved)
        model.restore_buffers(saved)

        total, owned = self._total, self._owned
        self.exchange.reduce(total)
        width = model.parameter_length
        rate = self.task.optimizer.learning_rate * self.task.schedule.factor(step, self.total_steps)
        if self.plan.partition == "none":
            self.exchange.gather(total)
            gradient = total[:width]
            self._clip(gradient, gathered=True)
            updated, state = self._update(gradient, step, rate)
            model.parameters.copy_(updated)
        else:
            gradient = total[owned]
            self._clip(gradient, gathered=False)
            updated, state = self._update(gradient, step, rate)
            total[owned] = updated
            self.exchange.gather(total)
            model.parameters.copy_(total[:width])
        self._state = state
        model.apply_buffer_changes(saved, total[width : self._sums])
        self.steps_done += 1

        loss, samples = float(total[self._sums]), len(indices)
        if not math.isfinite(loss):
            raise UserCodeError(
                f"the loss is {loss} at step {step}; lower the learning rate, set clip_norm, "
                "or look for samples that are not finite"
            )
        return StepResult(loss=loss, samples=samples, learning_rate=rate)

    def _indices(self, step: int) -> Tensor:
        epoch = self.order.epoch(step)
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = (epoch, self.order.permutation(epoch))
        return self.order.batch(step, self._permutation[1])

    def _compute_shard(
        self, step: int, shard: int, indices: Tensor, saved: dict[str, Tensor]
    ) -> None:
        """Push one shard's gradient, buffer changes and loss into the sum."""
        model, width = self.model, self.model.parameter_length
        vector = self.exchange.leaf()
        vector[model.entries[-1].slice.stop :].zero_()
        places = indices[stretch(len(indices), self.plan.shards, shard)]
        if len(places) == 0:
            self.exchange.push(vector.zero_())
            return
        model.restore_buffers(saved)
        seeds.seed_everything(seeds.derive(self.plan.seed, "shard", step, shard))
        with user_code("train"):
            batch = gather(self.task.train, places)
        loss = self._losses(batch, len(places)).sum() / len(indices)
        with user_code("the gradient of loss"):
            model.gradient(loss, vector)
        weight = len(places) / len(indices)
        model.buffer_changes(saved, weight, shard == 0, vector[width : self._sums])
        vector[self._sums] = loss.detach()
        self.exchange.push(vector)

    def _losses(self, batch: Batch, samples: int) -> Tensor:
        with user_code("loss"):
            losses = self.task.loss(self.model.model, batch)
            if losses.shape != (samples,):
                raise UserCodeError(
                    f"loss gave shape {tuple(losses.shape)} for {samples} samples; it must give "
                    f"one value a sample, shape ({samples},): use reduction='none'"
                )
        return losses

    def _clip(self, gradient: Tensor, *, gathered: bool) -> None:
        """Scale the gradient, whole or this worker's part of it, by the whole one's norm."""
        limit = self.task.clip_norm
        if limit is None:
            return
        squares = block_squares(gradient)
        if not gathered:
            everyone = torch.zeros(self.model.parameter_length // BLOCK, dtype=torch.float64)
            parts = [slice(p.start // BLOCK, p.stop // BLOCK) for p in self._parts]
            everyone[parts[self.group.rank]] = squares
            self.exchange.gather(everyone, parts)
            squares = everyone
        factor = clip_factor(squares, limit)
        if factor < 1.0:
            gradient.mul_(factor)

    def _update(self, gradient: Tensor, step: int, rate: float) -> tuple[Tensor, dict[str, Tensor]]:
        parameters = self.model.parameters[self._owned]
        return self.task.optimizer.update(parameters, gradient, self._state, step, rate)

    def evaluate(self) -> dict[str, float]:
        """The mean loss and metrics over the evaluation samples; complete on rank 0 only."""
        return evaluate(self.task, self.plan, self.group, self.steps_done)

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state vectors, whole, gathered from the parts where there are any."""
        if self.plan.partition == "none":
            return dict(self._state)
        whole = {}
        for slot, part in self._state.items():
            vector = torch.zeros_like(self.model.parameters)
            vector[self._owned] = part
            self.exchange.gather(vector, self._parts)
            whole[slot] = vector
        return whole

    def digest(self) -> str:
        """A hash of the state at this step; members of a group at the same step have the same."""
        hasher = hashlib.blake2b(digest_size=16)
        hasher.update(f"{self.steps_done}/{self.total_steps}/{self.order.samples}".encode())
        for name, tensor in self.model.named_tensors():
            hasher.update(name.encode())
            hasher.update(tensor.view(-1).view(torch.uint8).numpy().data)
        return hasher.hexdigest()
