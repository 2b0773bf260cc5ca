"""Solving for weights with a Hessian: pruning (OBS, SparseGPT) and quantization (GPTQ).

Frantar and Alistarh 2023 (SparseGPT, algorithm 1) and Frantar et al. 2022 (GPTQ, algorithm 1), in
float64. Pure: the same matrices give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from shardwise.compression.errors import CompressionError
from shardwise.compression.grid import Grid, fit_grid

BLOCK_COLUMNS = 128
DAMPING = 0.01
"""Added to the Hessian's diagonal, as a part of its mean."""


def inverse_factor(hessian: Tensor, name: str, damping: float = DAMPING) -> Tensor:
    """The upper Cholesky factor of the damped Hessian's inverse: float64, shape (n, n).

    Raises:
        CompressionError: the Hessian cannot be inverted: an input is not finite.
    """
    h = hessian.clone()
    diagonal = h.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1.0
    diagonal.add_(damping * float(diagonal.mean()))
    lower, failed = torch.linalg.cholesky_ex(h)
    if not bool(failed) and bool(torch.isfinite(lower).all()):
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not bool(failed):
            factor: Tensor = upper
            return factor
    raise CompressionError(
        f"layer {name}: the Hessian of its inputs cannot be inverted; look for samples that are "
        "not finite, or add the layer to ignore"
    )


Choice = Callable[[Tensor], Tensor]
"""From saliencies, shape (rows, columns), to what is kept: bool, the same shape."""


def lowest(sparsity: float) -> Choice:
    """Prune the given part of all entries: those of the least saliency, ties by their place."""

    def choose(saliency: Tensor) -> Tensor:
        kept = torch.ones(saliency.numel(), dtype=torch.bool)
        count = round(sparsity * saliency.numel())
        kept[saliency.reshape(-1).argsort(stable=True)[:count]] = False
        return kept.view_as(saliency)

    return choose


def two_of_four(saliency: Tensor) -> Tensor:
    """Keep the two most salient of every four neighbours in a row; a shorter rest is kept."""
    rows, columns = saliency.shape
    whole = columns // 4 * 4
    kept = torch.ones_like(saliency, dtype=torch.bool)
    fours = saliency[:, :whole].reshape(rows, -1, 4)
    least = fours.argsort(dim=-1, stable=True)[..., :2]
    kept[:, :whole] = (
        torch.ones_like(fours, dtype=torch.bool).scatter_(-1, least, False).view(rows, whole)
    )
    return kept


def prune_with_hessian(
    weight: Tensor, hessian: Tensor, choose: Choice, name: str, *, fours: bool = False
) -> tuple[Tensor, Tensor]:
    """OBS: prune, and let the weights that stay make up for those that go.

    Args:
        weight: shape (outputs, inputs).
        choose: what stays of a block of columns; with `fours`, of every four columns.

    Returns:
        The new weight in `weight`'s type, and what is kept (bool).
    """
    w = weight.to(torch.float64).clone()
    factor = inverse_factor(hessian, name)
    w[:, hessian.diagonal() == 0] = 0.0
    kept = torch.ones_like(w, dtype=torch.bool)
    columns = w.shape[1]
    for first in range(0, columns, BLOCK_COLUMNS):
        end = min(first + BLOCK_COLUMNS, columns)
        block, inner = w[:, first:end].clone(), factor[first:end, first:end]
        errors = torch.zeros_like(block)
        pivots = inner.diagonal()
        if not fours:
            kept[:, first:end] = choose(block.square() / pivots.square())
        for column in range(end - first):
            if fours and column % 4 == 0:
                four = slice(column, min(column + 4, end - first))
                kept[:, first:end][:, four] = choose(
                    block[:, four].square() / pivots[four].square()
                )
            old = block[:, column].clone()
            new = old * kept[:, first + column]
            error = (old - new) / pivots[column]
            block[:, column:] -= error[:, None] * inner[column, column:]
            block[:, column] = new
            errors[:, column] = error
        w[:, first:end] = block
        w[:, end:] -= errors @ factor[first:end, end:]
    return (w * kept).to(weight.dtype), kept


def quantize_with_hessian(
    weight: Tensor,
    hessian: Tensor,
    *,
    bits: int,
    group_size: int | None,
    symmetric: bool,
    kept: Tensor | None,
    name: str,
) -> tuple[Tensor, Grid]:
    """GPTQ: round column by column, and let later columns make up for the error so far.

    Args:
        weight: shape (outputs, inputs).
        group_size: columns that share a scale; None for the whole row.
        kept: pruned entries (False) stay exactly zero.

    Returns:
        The levels, uint8, shape (outputs, inputs), and their grid.
    """
    w = weight.to(torch.float64).clone()
    factor = inverse_factor(hessian, name)
    w[:, hessian.diagonal() == 0] = 0.0
    rows, columns = w.shape
    size = group_size or columns
    levels = torch.zeros(rows, columns, dtype=torch.uint8)
    scales: list[Tensor] = []
    zeros: list[Tensor] = []
    grid: Grid | None = None
    for first in range(0, columns, BLOCK_COLUMNS):
        end = min(first + BLOCK_COLUMNS, columns)
        block, inner = w[:, first:end].clone(), factor[first:end, first:end]
        errors = torch.zeros_like(block)
        for column in range(end - first):
            place = first + column
            if place % size == 0:
                # The block's columns are up to date, later ones up to this block's start.
                now = torch.cat([block[:, column:], w[:, end:]], 1)[:, :size]
                grid = fit_grid(now, bits=bits, group_size=None, symmetric=symmetric)
                scales.append(grid.scale)
                zeros.append(grid.zero)
            assert grid is not None
            old = block[:, column].clone()
            wanted = old if kept is None else old * kept[:, place]
            level = grid.levels(wanted[:, None])
            levels[:, place] = level[:, 0]
            new = grid.values(level)[:, 0].to(torch.float64)
            error = (old - new) / inner[column, column]
            block[:, column:] -= error[:, None] * inner[column, column:]
            errors[:, column] = error
        w[:, end:] -= errors @ factor[first:end, end:]
    whole = Grid(
        scale=torch.cat(scales, 1),
        zero=torch.cat(zeros, 1),
        bits=bits,
        group_size=size,
    )
    return levels, whole
