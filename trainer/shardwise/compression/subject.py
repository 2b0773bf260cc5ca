"""What the steps work on: a task with its model, what is pruned, and what is quantized.

The model always computes with ordinary floating-point weights; a weight that is quantized holds
exactly the values that its levels stand for, and a pruned one exactly zero.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from shardwise.compression.grid import Grid
from shardwise.compression.layers import Weight
from shardwise.compression.masks import apply_masks
from shardwise.engine.task import Task


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A quantized weight: its levels as a matrix (uint8), and their grid."""

    levels: Tensor
    grid: Grid

    def values(self) -> Tensor:
        return self.grid.values(self.levels)


@dataclass(kw_only=True)
class Subject:
    """The model under compression.

    Attributes:
        task: data, loss and metrics, with the model as it is now.
        masks: by parameter's name what is kept: bool, shape (outputs, inputs).
        quantized: by parameter's name.
        ranges: of what flows into each layer, by name: least and greatest, float64, shape (2,).
        edits: what changed the model's structure, in order; each can be done again.
        activations: how what flows between layers is quantized.
    """

    task: Task
    masks: dict[str, Tensor] = field(default_factory=dict)
    quantized: dict[str, Quantized] = field(default_factory=dict)
    ranges: dict[str, Tensor] = field(default_factory=dict)
    edits: list[str] = field(default_factory=list)
    activations: str = "none"

    @property
    def model(self) -> nn.Module:
        return self.task.model

    def copy(self) -> Subject:
        """A copy that later steps do not change. Data sets are shared."""
        return Subject(
            task=dataclasses.replace(self.task, model=copy.deepcopy(self.task.model)),
            masks=dict(self.masks),
            quantized=dict(self.quantized),
            ranges=dict(self.ranges),
            edits=list(self.edits),
            activations=self.activations,
        )

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter once, by its first name: tied ones are one."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    @torch.no_grad()
    def put(self, weights: Mapping[str, Weight], name: str, matrix: Tensor) -> None:
        """Set a weight's values, in place."""
        weights[name].matrix().copy_(matrix)

    def add_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Prune: what was pruned before stays so."""
        for name, mask in masks.items():
            self.masks[name] = mask & self.masks[name] if name in self.masks else mask
        apply_masks(self.parameters(), self.masks)

    @torch.no_grad()
    def add_quantized(self, name: str, quantized: Quantized) -> None:
        """Quantize a weight: from now on it has its levels' values."""
        self.quantized[name] = quantized
        parameter = self.parameters()[name]
        parameter.copy_(quantized.values().view_as(parameter))

    def state(self) -> dict[str, Tensor]:
        """Everything that the steps after this one depend on, but the structure (`edits`)."""
        state = {f"parameters/{name}": tensor for name, tensor in self.parameters().items()}
        state |= {f"buffers/{name}": tensor for name, tensor in self.model.named_buffers()}
        state |= {f"masks/{name}": tensor for name, tensor in self.masks.items()}
        state |= {f"ranges/{name}": tensor for name, tensor in self.ranges.items()}
        for name, quantized in self.quantized.items():
            grid = quantized.grid
            shape = torch.tensor([grid.bits, grid.group_size])
            state |= {
                f"levels/{name}": quantized.levels,
                f"scale/{name}": grid.scale,
                f"zero/{name}": grid.zero,
                f"grid/{name}": shape,
            }
        return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over another's `state()`; the structure is the same already."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(f"{prefix}/"): tensor
                for name, tensor in state.items()
                if name.startswith(f"{prefix}/")
            }

        for name, tensor in self.parameters().items():
            tensor.copy_(state[f"parameters/{name}"])
        for name, tensor in self.model.named_buffers():
            tensor.copy_(state[f"buffers/{name}"])
        self.masks, self.ranges = part("masks"), part("ranges")
        scale, zero, grids = part("scale"), part("zero"), part("grid")
        self.quantized = {
            name: Quantized(
                levels=levels,
                grid=Grid(
                    scale=scale[name],
                    zero=zero[name],
                    bits=int(grids[name][0]),
                    group_size=int(grids[name][1]),
                ),
            )
            for name, levels in part("levels").items()
        }


Replay = Callable[[Subject, str], None]
"""Does one of `edits` again on a subject."""


def rebuilt(task: Task, edits: Sequence[str], replay: Replay) -> Subject:
    """A subject with the structure that `edits` lead to; its tensors are to be loaded."""
    subject = Subject(task=dataclasses.replace(task, model=copy.deepcopy(task.model)))
    for edit in edits:
        replay(subject, edit)
        subject.edits.append(edit)
    return subject
