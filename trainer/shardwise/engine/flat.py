"""The model's tensors as flat vectors, and the layout of what the workers exchange.

The exchanged vector is

    [ parameters (or their gradients) | padding | buffers | sums | padding ]

Both regions are padded to whole blocks of BLOCK elements, and every cut between workers falls on
a block. So each elementwise kernel runs over whole vector registers only: its scalar tail, which
may round differently (fused multiply-add), never runs, and an element's value does not depend on
where its part begins or ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BLOCK = 1024
"""Elements of a block: a multiple of the widest unrolled kernel's stride (64 floats)."""


def padded(length: int) -> int:
    """The length rounded up to whole blocks."""
    return -(-length // BLOCK) * BLOCK


def cuts(length: int, parts: int) -> tuple[slice, ...]:
    """Whole blocks of a padded length dealt to `parts` owners, as evenly as they go."""
    total = length // BLOCK
    edges = [part * total // parts * BLOCK for part in range(parts + 1)]
    return tuple(slice(a, b) for a, b in itertools.pairwise(edges))


@dataclass(frozen=True)
class Entry:
    """A named tensor's place in a region."""

    name: str
    offset: int
    shape: torch.Size

    @property
    def slice(self) -> slice:
        return slice(self.offset, self.offset + self.shape.numel())


def _entries(named: Mapping[str, Tensor]) -> tuple[tuple[Entry, ...], int]:
    entries, offset = [], 0
    for name, tensor in named.items():
        entries.append(Entry(name, offset, tensor.shape))
        offset += tensor.numel()
    return tuple(entries), offset


class FlatModel:
    """A model whose trained parameters are views of one flat vector.

    Attributes:
        parameters: the trained parameters, padded; shape (parameter_length,).
        entries: name, offset and shape of each trained parameter.
        buffers: the persistent and other buffers by name, as the model holds them.

    Raises:
        ValueError: the parameters are of several types, not floating point, or none is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError("the model has no parameter that requires a gradient")
        kinds = {p.dtype for p in trained.values()}
        if len(kinds) > 1 or not next(iter(kinds)).is_floating_point:
            raise ValueError(
                f"parameters must all be float32 or all float64, not {sorted(map(str, kinds))}"
            )
        self.dtype = kinds.pop()
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"parameters must be float32 or float64, not {self.dtype}")
        self.entries, length = _entries(trained)
        self.parameters = torch.zeros(padded(length), dtype=self.dtype)
        self._trained = list(trained.values())
        for entry, parameter in zip(self.entries, self._trained, strict=True):
            view = self.parameters[entry.slice].view(entry.shape)
            view.copy_(parameter.detach())
            parameter.data = view
        self.buffers = dict(model.named_buffers())
        self._buffer_entries, self.buffer_length = _entries(self.buffers)

    @property
    def parameter_length(self) -> int:
        return self.parameters.numel()

    def gradient(self, loss: Tensor, out: Tensor) -> None:
        """Write the gradient of a scalar loss into `out`, shape (parameter_length,)."""
        gradients = torch.autograd.grad(loss, self._trained, allow_unused=True)
        for entry, gradient in zip(self.entries, gradients, strict=True):
            if gradient is None:
                out[entry.slice].zero_()
            else:
                out[entry.slice].copy_(gradient.reshape(-1))

    def saved_buffers(self) -> dict[str, Tensor]:
        """A copy of all buffers, to give each shard of a step the same start."""
        return {name: buffer.clone() for name, buffer in self.buffers.items()}

    def restore_buffers(self, saved: Mapping[str, Tensor]) -> None:
        for name, buffer in self.buffers.items():
            buffer.copy_(saved[name])

    def packed_buffers(self) -> Tensor:
        """The bytes of all buffers, one after the other: a new uint8 vector."""
        parts = [_bytes(buffer) for buffer in self.buffers.values()]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)

    def unpack_buffers(self, packed: Tensor) -> None:
        """Set all buffers to what `packed_buffers` gave."""
        sizes = [buffer.nbytes for buffer in self.buffers.values()]
        for buffer, part in zip(self.buffers.values(), torch.split(packed, sizes), strict=True):
            # Cloned, because a view as a wider type has to be aligned to it.
            buffer.copy_(part.clone().view(buffer.dtype).view(buffer.shape))

    def buffer_changes(
        self, saved: Mapping[str, Tensor], weight: float, first: bool, out: Tensor
    ) -> None:
        """Write one shard's contribution to the step's change of the buffers into `out`.

        Floating-point buffers change by the mean of the shards' changes, weighted by their samples
        (`weight`); integer ones, such as BatchNorm's count of batches, follow the first shard.
        """
        for entry in self._buffer_entries:
            change = self.buffers[entry.name] - saved[entry.name] if self._moves(entry) else None
            if change is None:
                out[entry.slice].zero_()
            elif change.dtype.is_floating_point:
                out[entry.slice].copy_(change.reshape(-1)).mul_(weight)
            else:
                out[entry.slice].copy_(change.reshape(-1)).mul_(float(first))

    def apply_buffer_changes(self, saved: Mapping[str, Tensor], changes: Tensor) -> None:
        """Set the buffers to what they were before the step, plus the summed changes."""
        for entry in self._buffer_entries:
            buffer = self.buffers[entry.name]
            buffer.copy_(saved[entry.name])
            if self._moves(entry):
                buffer.add_(changes[entry.slice].view(entry.shape).to(buffer.dtype))

    def _moves(self, entry: Entry) -> bool:
        return self.buffers[entry.name].dtype is not torch.bool

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What the result holds: the model's state_dict, each tensor contiguous and its own."""
        for name, tensor in self.model.state_dict().items():
            yield name, tensor.detach().clone().contiguous()

    def named_parts(self, vector: Tensor) -> Iterator[tuple[str, Tensor]]:
        """A vector that is laid out like the parameters, cut into their shapes."""
        for entry in self.entries:
            yield entry.name, vector[entry.slice].view(entry.shape).clone()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)
