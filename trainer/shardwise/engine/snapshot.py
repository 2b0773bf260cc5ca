"""A training's state at one step, or one worker's part of it: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Copies of everything that the steps after this one depend on; nothing else changes them."""

    step: int
    """Steps done."""
    evaluated: int
    """The step of the last evaluation; 0 before the first."""
    length: int
    """The padded length of θ, in elements."""
    part: slice
    """Which elements of θ `vectors` hold; slice(0, length) in a whole snapshot."""
    vectors: dict[str, Tensor]
    """"parameters" and "optimizer/<slot>": each 1-D, of the part's length, in the model's dtype."""
    tensors: dict[str, Tensor]
    """The model's buffers by name, whole."""
    history: bytes
    """As `History.to_bytes` gives it."""

    @property
    def whole(self) -> bool:
        return self.part == slice(0, self.length)
