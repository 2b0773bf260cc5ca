"""How long a run is and how it is cut: the engine's view of spec.trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from shardwise.engine.data import Order


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The part of the spec that the result depends on, besides the task itself."""

    batch_size: int
    shards: int
    seed: int = 0
    epochs: int | None = None
    steps: int | None = None
    evaluate_every_epochs: int = 1
    partition: Literal["none", "parameters"] = "none"

    @classmethod
    def from_spec(cls, trainer: Mapping[str, Any]) -> Plan:
        """The plan of a validated spec.trainer, in its JSON form."""
        return cls(
            batch_size=trainer["batchSize"],
            shards=trainer["shards"],
            seed=trainer.get("seed", 0),
            epochs=trainer.get("epochs"),
            steps=trainer.get("steps"),
            evaluate_every_epochs=trainer.get("evaluateEveryEpochs", 1),
            partition=trainer.get("partition", "none"),
        )

    def order(self, samples: int) -> Order:
        return Order(samples=samples, batch_size=self.batch_size, seed=self.seed)

    def total_steps(self, order: Order) -> int:
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None, "validation lets through exactly one of epochs and steps"
        return self.epochs * order.steps_per_epoch

    def evaluates_after(self, step: int, order: Order, total: int) -> bool:
        """Whether an evaluation follows once `step` steps are done."""
        if step == total:
            return True
        every = self.evaluate_every_epochs * order.steps_per_epoch
        return every > 0 and step % every == 0
