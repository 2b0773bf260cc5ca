"""Statistics over shards: sums, least and greatest values, rows gathered from their owners.

The samples are cut into fixed micro-batches, and those are dealt to `shards` fixed stretches. What
a shard gives is a function of its micro-batches alone, and the shards' values are added in the
tree's order. So a statistic has the same bits on any number of workers. A GroupError leaves
nothing behind: the same call can be made again with another group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shardwise.compression.errors import CompressionError
from shardwise.compression.sharing import Memo, Shared
from shardwise.engine import seeds
from shardwise.engine.activity import Beat, silent
from shardwise.engine.data import Batch, BatchedDataset, Dataset, gather, stretch
from shardwise.engine.exchange import TreeSum
from shardwise.engine.flat import BLOCK, padded
from shardwise.engine.group import Group
from shardwise.engine.tree import blocks
from shardwise.engine.usercode import user_code


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples in fixed micro-batches, dealt to `shards` stretches.

    Attributes:
        indices: the samples' places in the data set, int64, shape (n,).
        batch_size: samples of one micro-batch; the last one may be shorter.
    """

    dataset: BatchedDataset | Dataset
    indices: Tensor
    batch_size: int
    shards: int
    seed: int = 0
    beat: Beat = silent
    shared: Shared | None = None
    """Where other tasks may find what is computed of these samples."""

    def __post_init__(self) -> None:
        if len(self.indices) == 0:
            raise CompressionError(
                "spec.compression.calibration.samples: there are no calibration samples; give the "
                "task training samples"
            )

    @classmethod
    def drawn(
        cls,
        dataset: BatchedDataset | Dataset,
        count: int | None,
        *,
        batch_size: int,
        shards: int,
        seed: int,
        beat: Beat = silent,
        shared: Shared | None = None,
    ) -> Samples:
        """`count` samples drawn without repetition (all where None, or more than there are)."""
        total = len(dataset)
        if count is None or count >= total:
            indices = torch.arange(total)
        else:
            generator = torch.Generator().manual_seed(seeds.derive(seed, "calibration"))
            indices = torch.randperm(total, generator=generator)[:count]
        return cls(
            dataset=dataset,
            indices=indices,
            batch_size=batch_size,
            shards=shards,
            seed=seed,
            beat=beat,
            shared=shared,
        )

    def memo(self, kind: str, *models: nn.Module, detail: str = "") -> Memo | None:
        """Where a statistic of these samples is kept for other tasks; None: nowhere.

        Args:
            models: that it follows from.
            detail: what else it follows from, besides the samples.
        """
        if self.shared is None:
            return None
        drawn = hashlib.sha256(self.indices.numpy().tobytes()).hexdigest()
        cut = f"{drawn}/{self.batch_size}/{self.shards}/{self.seed}"
        return self.shared.memo(kind, models, f"{cut}/{detail}")

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, shard: int) -> slice:
        """The places among `indices` that a shard has: whole micro-batches."""
        batches = -(-len(self.indices) // self.batch_size)
        dealt = stretch(batches, self.shards, shard)
        end = min(dealt.stop * self.batch_size, len(self.indices))
        return slice(min(dealt.start * self.batch_size, end), end)

    def batches(self, shard: int) -> Iterator[tuple[slice, Batch]]:
        """A shard's micro-batches in order, each with its rows; torch is seeded before each."""
        rows = self.rows(shard)
        for first in range(rows.start, rows.stop, self.batch_size):
            self.beat("computing")
            place = slice(first, min(first + self.batch_size, rows.stop))
            seeds.seed_everything(seeds.derive(self.seed, "calibration", first))
            with user_code("train"):
                batch = gather(self.dataset, self.indices[place])
            yield place, batch


def reduce_shards(
    group: Group,
    shards: int,
    length: int,
    dtype: torch.dtype,
    compute: Callable[[int], Tensor],
    memo: Memo | None = None,
) -> Tensor:
    """The sum over all shards of `compute(shard)`, whole on every worker: shape (length,).

    Args:
        dtype: float64 for sums, int64 for counts. `compute` gives a vector of it.
        memo: where it may be known already.

    Raises:
        GroupError: a peer is gone; nothing has changed.
    """
    if memo is not None:
        known = memo.recall(lambda mine: _all_say(group, shards, mine))
        if known is None:
            known = reduce_shards(group, shards, length, dtype, compute)
            memo.keep(known, write=group.rank == 0)
        return known
    exchange = TreeSum(group, shards, padded(length), dtype)
    for shard in exchange.todo:
        leaf = exchange.leaf().zero_()
        values = compute(shard)
        assert values.dtype == dtype, f"a sum of {values.dtype} in {dtype} would round"
        leaf[:length] = values
        exchange.push(leaf)
    total = torch.zeros(padded(length), dtype=dtype)
    exchange.reduce(total)
    exchange.gather(total)
    return total[:length]


def _all_say(group: Group, shards: int, mine: bool) -> bool:
    """Whether all members of the group say so; each answers for its own shards."""
    if group.size == 1:
        return mine
    word = torch.tensor([int(mine)], dtype=torch.int64)
    return int(reduce_shards(group, shards, 1, torch.int64, lambda shard: word)) == shards


def extremes(
    group: Group,
    shards: int,
    length: int,
    compute: Callable[[int], tuple[Tensor, Tensor]],
    memo: Memo | None = None,
) -> tuple[Tensor, Tensor]:
    """The least and the greatest of the shards' values, element by element, exactly.

    Args:
        compute: a shard's (least, greatest), each float32, shape (length,); inf and -inf where the
            shard saw nothing.

    Returns:
        float32 vectors of shape (length,).
    """

    def slot(shard: int) -> Tensor:
        # Each shard has a row of its own, so that what is summed is one value and zeros.
        table = torch.zeros(shards, 2, length, dtype=torch.float32)
        table[shard, 0], table[shard, 1] = compute(shard)
        return table.view(-1)

    table = reduce_shards(group, shards, shards * 2 * length, torch.float32, slot, memo)
    rows = table.view(shards, 2, length)
    return rows[:, 0].amin(0), rows[:, 1].amax(0)


def gather_rows(
    group: Group,
    samples: Samples,
    compute: Callable[[Batch], Tensor],
    memo: Memo | None = None,
) -> Tensor:
    """What `compute` gives for each sample, one row a sample, in the order of `samples.indices`.

    Args:
        compute: rows of a micro-batch, shape (n, ...), the same type and width for all.
        memo: where it may be known already.

    Returns:
        Shape (len(samples), ...), the same on every worker.
    """
    if memo is not None:
        known = memo.recall(lambda mine: _all_say(group, samples.shards, mine))
        if known is None:
            known = gather_rows(group, samples, compute)
            memo.keep(known, write=group.rank == 0)
        return known
    mine = blocks(samples.shards, group.size)
    found: list[tuple[slice, Tensor]] = []
    for shard in mine[group.rank]:
        found += [(place, compute(batch)) for place, batch in samples.batches(shard)]
    shape, dtype = _agreed_shape(group, samples.shards, found)
    width = shape.numel()
    whole = torch.zeros(len(samples), width, dtype=dtype)
    for place, rows in found:
        whole[place] = rows.reshape(-1, width)
    parts = [
        slice(samples.rows(block.start).start * width, samples.rows(block.stop - 1).stop * width)
        for block in mine
    ]
    TreeSum(group, samples.shards, BLOCK, dtype).gather(whole.view(-1), parts)
    return whole.view(len(samples), *shape)


_TYPES = (torch.float32, torch.float64, torch.int64)


def _agreed_shape(
    group: Group, shards: int, found: list[tuple[slice, Tensor]]
) -> tuple[torch.Size, torch.dtype]:
    """A row's shape and type: from the first shard, which always has samples."""

    def tell(shard: int) -> Tensor:
        told = torch.zeros(10, dtype=torch.int64)
        if shard == 0:
            rows = found[0][1]
            told[0], told[1] = _TYPES.index(rows.dtype), rows.dim() - 1
            told[2 : 2 + rows.dim() - 1] = torch.tensor(rows.shape[1:], dtype=torch.int64)
        return told

    kind, dimensions, *sizes = reduce_shards(group, shards, 10, torch.int64, tell).tolist()
    return torch.Size(sizes[:dimensions]), _TYPES[kind]
