"""Levels and values: the grid of integers that a weight is rounded to. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_HALF, _MOST_HALF = 2.0**-14, 65504.0


@dataclass(frozen=True, kw_only=True)
class Grid:
    """value = (level - zero) · scale, for each row and each group of neighbouring columns.

    Attributes:
        scale: float16, or float32 where float16 has no such number; shape (rows, groups).
        zero: the level that stands for 0, uint8, shape (rows, groups).
        group_size: columns of one group; the last one may be shorter.
    """

    scale: Tensor
    zero: Tensor
    bits: int
    group_size: int

    def _spread(self, per_group: Tensor, columns: int) -> Tensor:
        wide = per_group.to(torch.float32)
        return wide.repeat_interleave(self.group_size, 1)[:, :columns]

    def levels(self, weight: Tensor) -> Tensor:
        """The nearest levels of `weight`, shape (rows, columns): uint8."""
        columns = weight.shape[1]
        scale, zero = self._spread(self.scale, columns), self._spread(self.zero, columns)
        level = (weight.to(torch.float64) / scale.to(torch.float64)).round_() + zero
        return level.clamp_(0, 2**self.bits - 1).to(torch.uint8)

    def values(self, levels: Tensor) -> Tensor:
        """What the levels stand for: float32, shape (rows, columns)."""
        columns = levels.shape[1]
        scale, zero = self._spread(self.scale, columns), self._spread(self.zero, columns)
        return (levels.to(torch.float32) - zero) * scale


def fit_grid(weight: Tensor, *, bits: int, group_size: int | None, symmetric: bool) -> Grid:
    """The grid that spans each group's values, from the least (at most 0) to the greatest.

    Args:
        weight: shape (rows, columns).
        symmetric: the grid's middle, level 2^(bits-1), is 0, and its lowest level is not used.
    """
    rows, columns = weight.shape
    size = group_size or columns
    groups = -(-columns // size)
    wide = torch.zeros(rows, groups * size, dtype=torch.float64)
    wide[:, :columns] = weight
    grouped = wide.view(rows, groups, size)
    least, most = grouped.amin(-1).clamp_(max=0.0), grouped.amax(-1).clamp_(min=0.0)
    top = 2**bits - 1
    if symmetric:
        scale = torch.maximum(-least, most) / (2 ** (bits - 1) - 1)
    else:
        scale = (most - least) / top
    scale[scale == 0.0] = 1.0
    stored = _store(scale)
    if symmetric:
        zero = torch.full_like(stored, 2 ** (bits - 1), dtype=torch.uint8)
    else:
        zero = (-least / stored.to(torch.float64)).round_().clamp_(0, top).to(torch.uint8)
    return Grid(scale=stored, zero=zero, bits=bits, group_size=size)


def _store(scale: Tensor) -> Tensor:
    """Scales as they are kept: half precision, unless one of them is too small or too large."""
    fits = bool(((scale >= _LEAST_HALF) & (scale <= _MOST_HALF)).all())
    return scale.to(torch.float16 if fits else torch.float32)
