"""Who computes which shards of a step: all anew, or only those that a broken group left undone.

Pure: every member calls it with the same arguments and so comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from shardwise.engine.data import stretch
from shardwise.engine.tree import Node, blocks, covering


class Share(NamedTuple):
    """One member's share of a step."""

    kept: tuple[Node, ...]
    """Subtrees that it has summed already."""
    todo: tuple[int, ...]
    """Shards that it has yet to compute, ascending."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The subtrees that it ends up with."""
        done = [shard for node in self.kept for shard in range(node.first, node.end)]
        return covering([*done, *self.todo])


def fresh(shards: int, workers: int) -> tuple[Share, ...]:
    """The shares of a step that nobody has begun, by rank."""
    return tuple(Share((), tuple(block)) for block in blocks(shards, workers))


def deal(shards: int, held: Sequence[Collection[Node]]) -> tuple[Share, ...]:
    """The shares of a step of which the members hold some subtrees already, by rank.

    Where two members hold the same shard, the larger subtree is used, then the lower rank's. What
    is left is dealt evenly, in stretches, in the order of what the members hold, so that
    stretches tend to lie beside it and few partial sums have to be sent.
    """
    if not any(held):
        return fresh(shards, len(held))
    kept: list[list[Node]] = [[] for _ in held]
    covered: set[int] = set()
    offers = sorted(
        ((node, rank) for rank, nodes in enumerate(held) for node in nodes),
        key=lambda offer: (-offer[0].level, offer[0].place, offer[1]),
    )
    for node, rank in offers:
        leaves = range(node.first, node.end)
        if covered.isdisjoint(leaves):
            covered.update(leaves)
            kept[rank].append(node)
    left = [shard for shard in range(shards) if shard not in covered]
    places = [min((node.first for node in nodes), default=shards) for nodes in kept]
    order = sorted(range(len(held)), key=lambda rank: (places[rank], rank))
    todo = {
        rank: tuple(left[stretch(len(left), len(held), place)]) for place, rank in enumerate(order)
    }
    return tuple(Share(tuple(sorted(kept[rank])), todo[rank]) for rank in range(len(held)))
