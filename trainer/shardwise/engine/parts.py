"""The optimizer's state in parts: which of them this worker holds, and for which steps.

With partitioned parameters a worker holds its own part and a copy of a neighbour's, so that one
death loses nothing. An update that is computed but not committed is held beside them: should a
peer turn out to have committed that step, it counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shardwise.engine.healing import Piece, Range


@dataclass(frozen=True, eq=False)
class Part:
    """The optimizer's state vectors for a range of θ, as they are after `step` steps."""

    step: int
    range: Range
    state: Mapping[str, Tensor]
    """By slot, each of the range's length."""

    @property
    def piece(self) -> Piece:
        return Piece(self.step, *self.range)

    def cut(self, start: int, stop: int) -> dict[str, Tensor]:
        """Views of the state of the elements [start, stop) of θ."""
        first = self.range.start
        return {slot: tensor[start - first : stop - first] for slot, tensor in self.state.items()}


class Parts:
    """What this worker holds. State tensors are never changed in place."""

    def __init__(self, slots: Sequence[str], dtype: torch.dtype) -> None:
        self._slots, self._dtype = tuple(slots), dtype
        self._held: list[Part] = []

    def pieces(self, step: int) -> tuple[Piece, ...]:
        """What is held for `step` and later ones: those may be what a peer has committed."""
        return tuple(sorted({part.piece for part in self._held if part.step >= step}))

    def add(self, part: Part) -> None:
        """Hold one more part; it replaces one for the same range and step."""
        self._held = [other for other in self._held if other.piece != part.piece]
        self._held.append(part)

    def keep(self, *parts: Part, later_than: int) -> None:
        """Hold these, and of the others those for steps after `later_than`."""
        later = [part for part in self._held if part.step > later_than]
        self._held = [*parts, *(part for part in later if part not in parts)]

    def find(self, step: int, start: int, stop: int) -> dict[str, Tensor]:
        """Views of the state of a range that lies within one part."""
        for part in self._held:
            if part.step == step and part.range.start <= start and stop <= part.range.stop:
                return part.cut(start, stop)
        raise KeyError(f"no part holds elements {start} to {stop} at step {step}")

    def empty(self, step: int, start: int, stop: int) -> Part:
        """A part to receive into; `add` it once it is complete."""
        state = {slot: torch.empty(stop - start, dtype=self._dtype) for slot in self._slots}
        return Part(step, Range(start, stop), state)

    def assemble(self, step: int, wanted: Range) -> Part:
        """The part for a range, joined out of those held; zeros before the first step."""
        length = wanted.stop - wanted.start
        if step == 0:
            zeros = {slot: torch.zeros(length, dtype=self._dtype) for slot in self._slots}
            return Part(step, wanted, zeros)
        for part in self._held:
            if part.step == step and part.range == wanted:
                return part
        whole = self.empty(step, *wanted)
        missing = [wanted]
        for part in self._held:
            if part.step != step:
                continue
            rest: list[Range] = []
            for gap in missing:
                start, stop = max(gap.start, part.range.start), min(gap.stop, part.range.stop)
                if start >= stop:
                    rest.append(gap)
                    continue
                for slot, tensor in part.cut(start, stop).items():
                    whole.state[slot][start - wanted.start : stop - wanted.start] = tensor
                rest += [Range(gap.start, start), Range(stop, gap.stop)]
            missing = [gap for gap in rest if gap.start < gap.stop]
        assert not missing or not self._slots, f"nobody gave {missing} of step {step}"
        return whole
