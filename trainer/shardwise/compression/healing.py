"""Who is behind copies from the first who is furthest."""

from __future__ import annotations

from collections.abc import Callable

import torch

from shardwise.engine.traffic import Traffic, pass_bytes, wait

# Apart from the engine's own tags.
_POSITION_TAG = 1 << 24
_STATE_TAG = _POSITION_TAG + 1


def copy_from_furthest(traffic: Traffic, position: int, state: Callable[[], bytes]) -> bytes | None:
    """The state of the furthest member where this one is behind it, else None.

    Raises:
        GroupError: a peer is gone.
    """
    positions = torch.zeros(traffic.size, 1, dtype=torch.int64)
    positions[traffic.rank] = position
    mine = positions[traffic.rank].clone()
    works = [traffic.receive(positions[peer], peer, _POSITION_TAG) for peer in traffic.others]
    works += [traffic.send(mine, peer, _POSITION_TAG) for peer in traffic.others]
    wait(works)
    leader, furthest = int(positions.view(-1).argmax()), int(positions.max())
    behind = [peer for peer in range(traffic.size) if int(positions[peer]) < furthest]
    if traffic.rank == leader and behind:
        data = state()
        pass_bytes(traffic, {peer: data for peer in behind}, (), _STATE_TAG)
    if traffic.rank in behind:
        return pass_bytes(traffic, {}, (leader,), _STATE_TAG)[leader]
    return None
