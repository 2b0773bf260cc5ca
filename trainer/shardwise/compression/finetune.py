"""Training after or during a step: the engine's own, with what is pruned staying zero."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from shardwise.compression.masks import Masked
from shardwise.compression.settings import FineTune
from shardwise.compression.stages import Surroundings, from_bytes, to_bytes
from shardwise.compression.subject import Subject
from shardwise.engine import seeds
from shardwise.engine.data import Batch, BatchedDataset, Dataset
from shardwise.engine.group import Group
from shardwise.engine.plan import Plan
from shardwise.engine.snapshot import Snapshot
from shardwise.engine.training import Training

Loss = Callable[[nn.Module, Batch], Tensor]


class Tuning:
    """A stage of one training step an advance, on the subject's model.

    Args:
        loss: instead of the task's, for example a distillation's.
        train: instead of the task's samples.
    """

    def __init__(
        self,
        subject: Subject,
        settings: FineTune,
        around: Surroundings,
        *,
        loss: Loss | None = None,
        train: BatchedDataset | Dataset | None = None,
    ) -> None:
        self.subject, self.around = subject, around
        task = subject.task
        inner = task.optimizer
        if settings.learning_rate is not None:
            # Every optimizer is a frozen dataclass with this field.
            inner = dataclasses.replace(inner, learning_rate=settings.learning_rate)  # type: ignore[type-var]
        self._optimizer = Masked(inner)
        plan = Plan(
            batch_size=settings.batch_size or around.batch_size,
            shards=around.shards,
            seed=seeds.derive(around.seed, "fine-tuning"),
            epochs=settings.epochs,
            steps=settings.steps,
            evaluate_every_epochs=0,
        )
        # The model's parameters become views of one vector; the subject keeps the same module.
        self.training = Training(
            dataclasses.replace(
                task,
                optimizer=self._optimizer,
                loss=loss or task.loss,
                train=task.train if train is None else train,
            ),
            plan,
        )
        self.training.beat = around.beat
        self.position = 0
        self.set_masks()

    @property
    def done(self) -> bool:
        return self.training.done

    def set_masks(self) -> None:
        """Hold the subject's masks from the next step on."""
        if self.subject.masks:
            self._optimizer.set_masks(self.training.model, self.subject.masks)

    def advance(self, group: Group) -> None:
        if self.training.group is not group:
            self.training.join(group)
        self.training.step()
        self.position += 1

    def state(self) -> dict[str, Tensor]:
        training = self.training
        # Nothing is partitioned, so every member has the whole of θ and of the optimizer's state.
        vectors = {"parameters": training.model.parameters} | {
            f"optimizer/{slot}": vector for slot, vector in training.optimizer_state().items()
        }
        state = {f"vectors/{name}": vector.clone() for name, vector in vectors.items()}
        state |= {f"tensors/{name}": t for name, t in training.model.saved_buffers().items()}
        place = torch.tensor([training.steps_done, training.evaluated])
        return state | {"place": place, "history": to_bytes(training.history.to_bytes())}

    def load_state(self, position: int, state: Mapping[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in state.items()
                if name.startswith(prefix)
            }

        step, evaluated = state["place"].tolist()
        length = self.training.model.parameter_length
        self.training.restore(
            Snapshot(
                step=step,
                evaluated=evaluated,
                length=length,
                part=slice(0, length),
                vectors=part("vectors/"),
                tensors=part("tensors/"),
                history=from_bytes(state["history"]),
            )
        )
        self.position = position
        self.set_masks()
