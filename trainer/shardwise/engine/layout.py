"""Which range of θ each member updates, and of whose part it holds a copy.

Pure: every member comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardwise.engine.healing import Range


@dataclass(frozen=True)
class Layout:
    """The optimizer's state over a group, by rank."""

    own: tuple[Range, ...]
    """The range that each member updates."""
    copies: tuple[int | None, ...]
    """The rank of whose range each member holds a copy; None for no one's."""
    stateful: bool
    """Whether the optimizer has any state."""

    @property
    def needs(self) -> tuple[tuple[Range, ...], ...]:
        """The ranges whose state each member has to hold."""
        if not self.stateful:
            return ((),) * len(self.own)
        return tuple(
            tuple(
                wanted
                for wanted in (own, *([] if copied is None else [self.own[copied]]))
                if wanted.start < wanted.stop
            )
            for own, copied in zip(self.own, self.copies, strict=True)
        )

    def keeper(self, rank: int) -> int | None:
        """Who holds a copy of the rank's range."""
        return self.copies.index(rank) if rank in self.copies else None


def whole(length: int, size: int, *, stateful: bool) -> Layout:
    """Every member updates all of θ."""
    return Layout((Range(0, length),) * size, (None,) * size, stateful)


def partitioned(length: int, parts: Sequence[slice], *, stateful: bool) -> Layout:
    """Every member updates its part, and holds a copy of its left neighbour's.

    Args:
        length: of θ; the parts may go on beyond it.
        parts: the part of the exchanged vector that each member finishes and sends, by rank.
        stateful: whether the optimizer has any state.

    A member whose part is empty is passed over: whoever keeps a copy has to have something to
    send, since the others know by its receipt that the copy is in place.
    """
    own = tuple(Range(min(part.start, length), min(part.stop, length)) for part in parts)
    senders = [rank for rank, part in enumerate(parts) if part.start < part.stop]
    copies: list[int | None] = [None] * len(parts)
    if stateful and len(senders) > 1:
        for place, rank in enumerate(senders):
            left = senders[place - 1]
            if own[left].start < own[left].stop:
                copies[rank] = left
    return Layout(own, tuple(copies), stateful)
