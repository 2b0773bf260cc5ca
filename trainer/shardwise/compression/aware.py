"""Training that sees the rounding (QAT): the forward pass uses the levels' values, and gradients
pass straight through to the weights (Bengio et al. 2013).

What a weight is rounded to is a function of the weight; what flows between layers is rounded by
the least and greatest value of the shard's own batch. Nothing is remembered between steps, so no
state depends on who computed which shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from shardwise.compression.finetune import Loss
from shardwise.compression.grid import fit_grid
from shardwise.compression.settings import Quantize
from shardwise.compression.subject import Subject
from shardwise.engine.data import Batch


def rounding_loss(subject: Subject, settings: Quantize, names: Sequence[str]) -> Loss:
    """The task's loss, of a model whose named weights are rounded as `settings` say."""
    task = subject.task
    rounded = frozenset(names)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return task.loss(_Rounded(model, settings, rounded), batch)

    return loss


class _Rounded(nn.Module):
    """Calls a model with other weights than its own, which stay as they are."""

    def __init__(self, model: nn.Module, settings: Quantize, names: frozenset[str]) -> None:
        super().__init__()
        # Not a submodule: its parameters are the engine's to list.
        self.__dict__["_model"] = model
        self._settings, self._names = settings, names

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        model: nn.Module = self.__dict__["_model"]
        weights = {
            name: _straight_through(parameter, self._settings)
            for name, parameter in model.named_parameters()
            if name in self._names
        }
        handles = []
        if self._settings.activations != "None":
            handles = [
                module.register_forward_pre_hook(_round_input)
                for module in model.modules()
                if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
            ]
        try:
            return functional_call(model, weights, args, kwargs)
        finally:
            for handle in handles:
                handle.remove()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_model"], name)


def _straight_through(parameter: Tensor, settings: Quantize) -> Tensor:
    matrix = parameter.detach().reshape(parameter.shape[0], -1)
    grid = fit_grid(
        matrix, bits=settings.bits, group_size=settings.group_size, symmetric=settings.symmetric
    )
    values = grid.values(grid.levels(matrix)).view_as(parameter).to(parameter.dtype)
    return parameter + (values - parameter.detach())


def _round_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    del module
    x = inputs[0]
    least, most = x.detach().amin().clamp(max=0.0), x.detach().amax().clamp(min=0.0)
    scale = float((most - least) / 255) or 1.0
    zero = int((-least / scale).round().clamp(0, 255))
    return (torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255), *inputs[1:])
