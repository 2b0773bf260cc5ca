"""The gradient's 2-norm, in an order that does not depend on who holds which part."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shardwise.engine.flat import BLOCK


def block_squares(gradient: Tensor) -> Tensor:
    """The sum of squares of each block: float64, shape (length / BLOCK,)."""
    return gradient.view(-1, BLOCK).to(torch.float64).square_().sum(dim=1)


def clip_factor(squares: Tensor, limit: float) -> float:
    """What to multiply the gradient by so that its norm is at most `limit`.

    As torch.nn.utils.clip_grad_norm_: limit / (norm + 1e-6), at most 1.
    """
    norm = math.sqrt(float(squares.sum()))
    return min(1.0, limit / (norm + 1e-6))
