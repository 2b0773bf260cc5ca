"""The smallest parts of a step: each advance makes at most one exchange, and commits after it.

A GroupError leaves a stage as it was, and the same advance can be made again with another group.
What a stage has committed is in its subject and in `state()`; a member that comes later copies
both from one that is further.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shardwise.compression.reduction import Samples
from shardwise.compression.sharing import Shared
from shardwise.compression.subject import Subject
from shardwise.engine.activity import Beat
from shardwise.engine.group import Group


class Stage(Protocol):
    """A part of a step. All members of a group make the same calls."""

    position: int
    """Advances done; it only grows."""

    @property
    def done(self) -> bool: ...

    def advance(self, group: Group) -> None:
        """Do the next advance.

        Raises:
            GroupError: a peer is gone; nothing has changed.
            CompressionError: the step cannot be done.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """What the advances to come depend on, besides the subject."""
        ...

    def load_state(self, position: int, state: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What stages need to know of the run."""

    shards: int
    seed: int
    batch_size: int
    calibration_samples: int
    calibration_batch_size: int
    beat: Beat
    shared: Shared | None = None
    """Where other tasks may find statistics."""

    def calibration(self, subject: Subject) -> Samples:
        """The calibration samples: the same for all steps of a run."""
        return Samples.drawn(
            subject.task.train,
            self.calibration_samples,
            batch_size=self.calibration_batch_size,
            shards=self.shards,
            seed=self.seed,
            beat=self.beat,
            shared=self.shared,
        )


class Rounds:
    """A stage of a fixed number of advances that leave no state but the subject's."""

    def __init__(self, count: int, advance: Callable[[Group, int], None]) -> None:
        self._count, self._advance = count, advance
        self.position = 0

    @property
    def done(self) -> bool:
        return self.position >= self._count

    def advance(self, group: Group) -> None:
        self._advance(group, self.position)
        self.position += 1

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, position: int, state: Mapping[str, Tensor]) -> None:
        del state
        self.position = position


def to_bytes(data: bytes) -> Tensor:
    """Bytes as a tensor that can be sent: uint8, shape (n,)."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0).byte()


def from_bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()
