"""Who copies what from whom when a group forms, so that all its members stand at one step.

A task's state at a step follows from the spec, so two members that hold the same step hold the
same bytes, and it does not matter from whom a laggard copies. Every member says what it holds, and
calls `plan_transfers` with what all have said: pure, so all come to the same plan.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shardwise.engine.group import StateLost
from shardwise.engine.tree import Node


class Position(NamedTuple):
    """How far a member is; ordered as time is."""

    step: int
    """Steps done."""
    evaluated: int
    """The step of the last evaluation."""


class Piece(NamedTuple):
    """A range of the optimizer's state, elements [start, stop), as it is after `step` steps."""

    step: int
    start: int
    stop: int


@dataclass(frozen=True)
class Holding:
    """What one member holds."""

    position: Position
    pieces: tuple[Piece, ...] = ()
    round: str = ""
    """The round that it has begun, or "": a step's or an evaluation's."""
    nodes: tuple[Node, ...] = ()
    """The subtrees of that round that it has summed."""

    def to_bytes(self) -> bytes:
        return json.dumps([self.position, self.pieces, self.round, self.nodes]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Holding:
        position, pieces, name, nodes = json.loads(data)
        return cls(
            Position(*position),
            tuple(Piece(*piece) for piece in pieces),
            name,
            tuple(Node(*node) for node in nodes),
        )


class Range(NamedTuple):
    """Elements [start, stop) of θ."""

    start: int
    stop: int


class Copy(NamedTuple):
    """A range of the optimizer's state that `target` copies out of `piece` of `source`."""

    source: int
    target: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """What makes all members stand at `position`."""

    position: Position
    models: tuple[tuple[int, int], ...]
    """(source, target): who copies parameters and buffers."""
    histories: tuple[tuple[int, int], ...]
    """(source, target): who copies what its history lacks."""
    copies: tuple[Copy, ...]


def plan_transfers(holdings: Sequence[Holding], needs: Sequence[Sequence[Range]]) -> Plan:
    """How all members come to the highest position whose whole state is still held.

    Args:
        holdings: what each member holds, by rank.
        needs: the ranges of the optimizer's state that each member is to hold, by rank; none
            where the optimizer has no state.

    That is the highest position of a member, unless a part of the optimizer's state at that step
    went with members that are not here while all of an earlier step is. At step 0 the
    optimizer's state is zero and nobody has to hold it, but no group goes back to step 0.

    Raises:
        StateLost: there is no such position.
    """
    top = max(holding.position for holding in holdings)
    lost = ""
    for step in sorted({holding.position.step for holding in holdings}, reverse=True):
        if step == 0 and top.step > 0:
            break
        copies, missing = ([], None) if step == 0 else _copies(step, holdings, needs)
        if missing is None:
            return _plan(step, holdings, tuple(copies))
        lost = lost or (
            f"elements {missing.start} to {missing.stop} of the optimizer's state at step {step} "
            f"are held by none of the {len(holdings)} workers; resume from a checkpoint"
        )
    raise StateLost(lost)


def _plan(step: int, holdings: Sequence[Holding], copies: tuple[Copy, ...]) -> Plan:
    target = max(h.position for h in holdings if h.position.step == step)
    sources = [rank for rank, h in enumerate(holdings) if h.position == target]
    laggards = [rank for rank, h in enumerate(holdings) if h.position != target]
    histories = tuple(
        (sources[number % len(sources)], rank) for number, rank in enumerate(laggards)
    )
    models = tuple((s, rank) for s, rank in histories if holdings[rank].position.step != step)
    return Plan(target, models, histories, copies)


def _copies(
    step: int, holdings: Sequence[Holding], needs: Sequence[Sequence[Range]]
) -> tuple[list[Copy], Range | None]:
    """The copies that satisfy the needs at a step, or what nobody holds."""
    held = [[piece for piece in h.pieces if piece.step == step] for h in holdings]
    load = [0] * len(holdings)
    copies: list[Copy] = []
    for target, ranges in enumerate(needs):
        for wanted in ranges:
            place = wanted.start
            while place < wanted.stop:
                own = _reach(held[target], place)
                if own > place:  # it has this itself
                    place = min(own, wanted.stop)
                    continue
                reaches = [_reach(pieces, place) for pieces in held]
                sources = [rank for rank, reach in enumerate(reaches) if reach > place]
                if not sources:
                    return copies, Range(place, wanted.stop)
                source = min(sources, key=lambda rank: load[rank])
                # No further than where its own holding begins again.
                edges = [piece.start for piece in held[target] if piece.start > place]
                stop = min([reaches[source], wanted.stop, *edges])
                copies.append(Copy(source, target, place, stop))
                load[source] += stop - place
                place = stop
    return copies, None


def _reach(pieces: Sequence[Piece], place: int) -> int:
    """How far the longest piece goes that holds the element at `place`; `place` if none does."""
    return max((p.stop for p in pieces if p.start <= place < p.stop), default=place)
