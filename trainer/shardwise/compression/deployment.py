"""The model as it would be used: what is measured, packed and exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from shardwise.compression.packing import pack
from shardwise.compression.static import Prepared
from shardwise.compression.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model that computes as the compressed one does, and what its artifact holds.

    Attributes:
        tensors: what is stored, by name.
        tied: further names of stored tensors.
    """

    subject: Subject
    model: nn.Module
    tensors: Mapping[str, Tensor]
    tied: Mapping[str, str]

    def packed(self) -> bytes:
        """The bytes of `model.safetensors`."""
        return pack(self.subject, self.tensors, self.tied)

    def left_alone(self) -> list[str]:
        """A note of the weights that are still in floating point; none where there are none."""
        floats = {
            name: tensor.numel()
            for name, tensor in self.model.named_parameters()
            if tensor.is_floating_point() and tensor.dim() > 1
            if name not in self.subject.quantized
        }
        if not floats:
            return []
        first, *others = floats
        more = f" and {len(others)} more" if others else ""
        return [f"in floating point: {first}{more} ({sum(floats.values())} weights)"]


def deploy(subject: Subject) -> Deployment:
    """The model that the subject stands for.

    Raises:
        CompressionError: the model cannot be converted.
    """
    if subject.activations == "static":
        model = Prepared(subject.task).converted(subject.ranges)
        tensors = dict(model.state_dict())
        plain = Subject(task=subject.task)
        return Deployment(subject=plain, model=model, tensors=tensors, tied={})
    tensors, tied = _stored(subject.model)
    model = subject.model.eval()
    if subject.activations == "dynamic":
        model = _with_dynamic_inputs(model)
    return Deployment(subject=subject, model=model, tensors=tensors, tied=tied)


def _stored(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model's state, each tensor once, and the further names of tied ones."""
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and place in first:
            tied[name] = first[place]
        else:
            first[place] = name
            tensors[name] = tensor
    return tensors, tied


def _with_dynamic_inputs(model: nn.Module) -> nn.Module:
    """A copy whose Linear layers round their inputs, row by row, to symmetric int8."""
    chosen = copy.deepcopy(model)
    for module in chosen.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_round_rows)
    return chosen


def _round_rows(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    del module
    x = inputs[0]
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
    return ((x / scale).round().clamp(-127, 127) * scale, *inputs[1:])
