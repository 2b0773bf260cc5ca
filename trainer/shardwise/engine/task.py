"""What user code gives: a model, its data, a loss and how to optimize it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from shardwise.engine.data import Batch, BatchedDataset, Dataset
from shardwise.engine.optimizers import Optimizer
from shardwise.engine.schedules import Constant, Schedule


@dataclass(frozen=True, kw_only=True)
class Task:
    """One optimization task: minimize the mean loss over the training samples.

    An entrypoint returns one of these. It is called on every worker, after torch, NumPy and
    `random` are seeded from the job's seed, and must give the same task on each.
    """

    model: nn.Module
    """The model, in float32 or float64. Parameters that need no gradient stay as they are."""

    train: BatchedDataset | Dataset
    """The training samples."""

    loss: Callable[[nn.Module, Batch], Tensor]
    """The loss of each sample of a batch: shape (n,). The engine takes the mean over the batch."""

    optimizer: Optimizer
    """SGD, Adam or AdamW, with its settings."""

    evaluation: BatchedDataset | Dataset | None = None
    """Held-out samples; without them only the training loss is reported."""

    metrics: Callable[[nn.Module, Batch], Mapping[str, Tensor]] | None = None
    """Figures of each evaluation sample by name, each of shape (n,): `accuracy` is 0 or 1."""

    schedule: Schedule = field(default_factory=Constant)
    """How the learning rate changes over the run."""

    clip_norm: float | None = None
    """Scale the gradient down to this 2-norm where it is longer."""

    evaluation_batch_size: int = 256
    """Samples of one forward pass of an evaluation."""

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise ValueError(f"clip_norm must be positive, not {self.clip_norm}")
        if self.evaluation_batch_size < 1:
            raise ValueError(
                f"evaluation_batch_size must be 1 or more, not {self.evaluation_batch_size}"
            )
        if len(self.train) == 0:
            raise ValueError("train has no samples")
        if self.evaluation is not None and len(self.evaluation) == 0:
            raise ValueError("evaluation has no samples; leave it out to run without one")
