"""What a training is at one step, and how a group brings all its members to the same one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shardwise.engine.flat import FlatModel
from shardwise.engine.healing import Holding, Plan, Position, Range, plan_transfers
from shardwise.engine.history import History
from shardwise.engine.parts import Part, Parts
from shardwise.engine.traffic import (
    Flight,
    Traffic,
    everybody_is_here,
    pass_bytes,
    receive_all,
    send_all,
    wait,
)
from shardwise.engine.tree import Node

# Tags of a group's healing, beyond those of the sums; passing bytes takes two.
_HOLDINGS_TAG = 1 << 22
_HISTORIES_TAG = _HOLDINGS_TAG + 2
_PARAMETERS_TAG = _HOLDINGS_TAG + 4
_BUFFERS_TAG = _HOLDINGS_TAG + 5
_HERE_TAG = _HOLDINGS_TAG + 6
_COPIES_TAG = 1 << 23


@dataclass
class State:
    """What the next steps depend on."""

    model: FlatModel
    parts: Parts
    history: History
    step: int = 0
    """Steps done."""
    evaluated: int = 0
    """The step of the last evaluation."""

    @property
    def position(self) -> Position:
        return Position(self.step, self.evaluated)


def heal(
    traffic: Traffic,
    state: State,
    needs: Sequence[tuple[Range, ...]],
    round_name: str,
    nodes: Collection[Node],
) -> list[Holding]:
    """Bring this member to where all of the group go on from; what every member held, by rank.

    All members call it, with the same `needs`: the ranges of the optimizer's state that each is
    to hold, by rank. Nothing is given up of what this member held before, so that where the group
    breaks in the middle, on whichever members, the next one finds all of it again. A member's
    position changes only once it has received all that belongs to it.

    Raises:
        GroupError: a peer is gone.
        StateLost: a part of the optimizer's state is held by nobody; all members are told.
    """
    mine = Holding(state.position, state.parts.pieces(state.step), round_name, tuple(nodes))
    others = traffic.others
    said = pass_bytes(traffic, dict.fromkeys(others, mine.to_bytes()), others, _HOLDINGS_TAG)
    holdings = [
        mine if rank == traffic.rank else Holding.from_bytes(said[rank])
        for rank in range(traffic.size)
    ]
    plan = plan_transfers(holdings, needs)
    if plan.histories or plan.copies:
        _transfer(traffic, state, plan, holdings)
    if len(set(needs)) > 1:
        # Others count on the copies of this member's part: it may let go of what it held only
        # when all have theirs.
        everybody_is_here(traffic, _HERE_TAG)
    return holdings


@dataclass(frozen=True)
class _Receipts:
    """What this member receives, and nothing of it counts before all is here."""

    parameters: Tensor | None
    buffers: Tensor | None
    parts: tuple[Part, ...]
    works: tuple[Flight, ...]


def _transfer(traffic: Traffic, state: State, plan: Plan, holdings: Sequence[Holding]) -> None:
    # All receipts are posted before the first transfer is sent: senders wait for them.
    receipts = _receive(traffic, state, plan)
    sent = _send(traffic, state, plan)
    tails = pass_bytes(
        traffic,
        {
            target: state.history.to_bytes(*map(min, holdings[target].position, plan.position))
            for source, target in plan.histories
            if source == traffic.rank
        },
        [source for source, target in plan.histories if target == traffic.rank],
        _HISTORIES_TAG,
    )
    wait((*receipts.works, *sent))
    for part in receipts.parts:
        state.parts.add(part)
    if receipts.parameters is not None and receipts.buffers is not None:
        state.model.parameters.copy_(receipts.parameters)
        state.model.unpack_buffers(receipts.buffers)
    for tail in tails.values():
        state.history.truncate(*plan.position)
        state.history.extend(tail)
    state.step, state.evaluated = plan.position


def _receive(traffic: Traffic, state: State, plan: Plan) -> _Receipts:
    model, works, parts = state.model, [], []
    parameters = buffers = None
    for source, target in plan.models:
        if target == traffic.rank:
            parameters = torch.empty_like(model.parameters)
            buffers = torch.empty_like(model.packed_buffers())
            works += receive_all(traffic, parameters, source, _PARAMETERS_TAG)
            works += receive_all(traffic, buffers, source, _BUFFERS_TAG)
    for number, copy in enumerate(plan.copies):
        if copy.target == traffic.rank:
            part = state.parts.empty(plan.position.step, copy.start, copy.stop)
            parts.append(part)
            for vector in part.state.values():
                works += receive_all(traffic, vector, copy.source, _COPIES_TAG + number)
    return _Receipts(parameters, buffers, tuple(parts), tuple(works))


def _send(traffic: Traffic, state: State, plan: Plan) -> list[Flight]:
    works: list[Flight] = []
    laggards = [target for source, target in plan.models if source == traffic.rank]
    if laggards:
        # Copies: should the group break, this member trains on while they may still be under way.
        parameters, buffers = state.model.parameters.clone(), state.model.packed_buffers()
        for target in laggards:
            works += send_all(traffic, parameters, target, _PARAMETERS_TAG)
            works += send_all(traffic, buffers, target, _BUFFERS_TAG)
    for number, copy in enumerate(plan.copies):
        if copy.source == traffic.rank:
            views = state.parts.find(plan.position.step, copy.start, copy.stop)
            for vector in views.values():
                works += send_all(traffic, vector, copy.target, _COPIES_TAG + number)
    return works
