"""Pruned weights stay zero: an optimizer whose update ends with the mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from shardwise.compression.errors import CompressionError
from shardwise.engine.flat import FlatModel
from shardwise.engine.optimizers import Optimizer


class Masked:
    """An optimizer on the whole of θ; what the mask does not keep is zero after each update.

    Attributes:
        kept: what may change (True) and what stays zero: bool, shape (parameter_length,); None
            until the first mask is set.
    """

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        self.kept: Tensor | None = None

    @property
    def learning_rate(self) -> float:
        return self.inner.learning_rate

    @property
    def slots(self) -> tuple[str, ...]:
        return self.inner.slots

    def update(
        self,
        parameters: Tensor,
        gradient: Tensor,
        state: Mapping[str, Tensor],
        step: int,
        rate: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        updated, new = self.inner.update(parameters, gradient, state, step, rate)
        if self.kept is not None:
            assert len(self.kept) == len(updated), "masks need the whole of θ on every worker"
            # Not a product: it would keep the sign of a zero, and make NaN of an infinity.
            updated = torch.where(self.kept, updated, torch.zeros((), dtype=updated.dtype))
        return updated, new

    def set_masks(self, model: FlatModel, masks: Mapping[str, Tensor]) -> None:
        """Keep to `masks` (bool, by parameter's name) from now on, and apply them at once."""
        self.kept = torch.ones(model.parameter_length, dtype=torch.bool)
        entries = {entry.name: entry for entry in model.entries}
        for name, mask in masks.items():
            if name not in entries:
                raise CompressionError(
                    f"layer {name}: its weight is pruned but not trained any more; let its "
                    "parameter require a gradient"
                )
            self.kept[entries[name].slice] = mask.reshape(-1)
        model.parameters.copy_(torch.where(self.kept, model.parameters, torch.zeros(())))


@torch.no_grad()
def apply_masks(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Zero what the masks do not keep, in place. Masks are matrices or have the shape itself."""
    for name, mask in masks.items():
        parameter = parameters[name]
        parameter[~mask.view_as(parameter)] = 0.0


def sparsity(masks: Mapping[str, Tensor]) -> float:
    """The part of the masked weights that is pruned."""
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    return 1.0 - kept / total if total else 0.0
