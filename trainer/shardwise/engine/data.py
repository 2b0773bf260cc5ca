"""Data: what a batch holds, in which order samples come, and which of them a shard gets.

The order of an epoch follows from (seed, epoch) alone. A batch is a stretch of that order, and a
shard a fixed stretch of its batch. The last batch of an epoch may be short; its loss is divided
by its own number of samples, and no sample is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import default_collate

from shardwise.engine import seeds

Batch = Any
"""What a data set gives for several indices: usually a tuple of tensors, first dimension n."""


@runtime_checkable
class BatchedDataset(Protocol):
    """A data set that can gather many samples at once."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Batch:
        """The samples at `indices` (int64, shape (n,)) as one batch."""
        ...


class Dataset(Protocol):
    """Any map-style data set, as torch.utils.data.Dataset: its samples are collated one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Tensors:
    """Tensors of equal length as a data set: sample i is the tuple of their i-th rows.

    Raises:
        ValueError: no tensor is given, or their lengths differ.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ValueError("Tensors() needs at least one tensor")
        lengths = [len(tensor) for tensor in tensors]
        if len(set(lengths)) > 1:
            raise ValueError(f"tensors of one data set need equal lengths, not {lengths}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor[indices] for tensor in self.tensors)


def gather(dataset: BatchedDataset | Dataset, indices: Tensor) -> Batch:
    """The samples at `indices` as one batch."""
    if isinstance(dataset, BatchedDataset):
        return dataset.batch(indices)
    return default_collate([dataset[i] for i in indices.tolist()])


@dataclass(frozen=True, kw_only=True)
class Order:
    """Which samples each step takes: a function of the spec, pure and cheap to ask anew."""

    samples: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.batch_size)

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def permutation(self, epoch: int) -> Tensor:
        """The epoch's order of samples: int64, shape (samples,)."""
        generator = torch.Generator().manual_seed(seeds.derive(self.seed, "order", epoch))
        return torch.randperm(self.samples, generator=generator)

    def batch(self, step: int, permutation: Tensor) -> Tensor:
        """Indices of the step's global batch, out of the permutation of its epoch."""
        first = (step % self.steps_per_epoch) * self.batch_size
        return permutation[first : first + self.batch_size]


def stretch(length: int, parts: int, part: int) -> slice:
    """The part-th of `parts` stretches of `length` items; the first ones are one longer.

    Part 0 is never empty while length > 0.
    """
    size, longer = divmod(length, parts)
    first = part * size + min(part, longer)
    return slice(first, first + size + (part < longer))
