"""The sum of the shards' vectors over all workers, in the tree's order, and the gathering of parts.

Every worker adds up the subtrees of its own shards as they come, sends each other worker the part
of them that it owns, finishes the tree on its own part, and gathers the parts. The traffic is
that of a ring all-reduce when every worker has one subtree; the additions are the tree's.

Until the round is ended by `reset`, a worker's own subtrees stay as they are: where the group
breaks before that, the same round is done again from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from shardwise.engine.deal import Share, fresh
from shardwise.engine.flat import cuts
from shardwise.engine.group import Group, Work
from shardwise.engine.traffic import wait
from shardwise.engine.tree import Node, additions

_REDUCE_TAG = 1
_GATHER_TAG = 1 << 20
_PARTS_TAG = 1 << 21


class TreeSum:
    """Sums one vector a shard. One instance serves any number of rounds over the same group.

    Attributes:
        own: the part of the vector whose sum this worker finishes.
        parts: that part of every worker, by rank.
    """

    def __init__(
        self,
        group: Group,
        shards: int,
        length: int,
        dtype: torch.dtype,
        *,
        shares: Sequence[Share] | None = None,
        kept: Mapping[Node, Tensor] | None = None,
    ) -> None:
        """Prepare for a group.

        Args:
            group: this worker's view of it.
            shards: the number of vectors of a round.
            length: their length, in elements; whole blocks.
            dtype: their type.
            shares: who computes what, by rank; by default all shards are dealt in blocks.
            kept: the sums of this worker's `kept` subtrees; they belong to the sum from then on,
                and serve for one round.
        """
        self._group = group
        self._length, self._dtype = length, dtype
        shares = fresh(shards, group.size) if shares is None else shares
        self._share = shares[group.rank]
        self.parts = cuts(length, group.size)
        self.own = self.parts[group.rank]
        self._mine = self._share.nodes
        self._theirs = [
            (worker, number, node)
            for worker, share in enumerate(shares)
            if worker != group.rank
            for number, node in enumerate(share.nodes)
        ]
        everything = [*self._mine, *(node for _, _, node in self._theirs)]
        self._root, self._additions = additions(shards, frozenset(everything))
        self._received = {node: self._part() for _, _, node in self._theirs}
        self._scratch: dict[Node, Tensor] = {}
        self._nodes: dict[Node, Tensor] = dict(kept or {})
        self._pushed = 0
        self._free: list[Tensor] = []
        self._gathering: list[Work] = []

    def _part(self) -> Tensor:
        return torch.empty(self.own.stop - self.own.start, dtype=self._dtype)

    @property
    def todo(self) -> tuple[int, ...]:
        """The shards that this worker has yet to compute, in the order in which to push them."""
        return self._share.todo[self._pushed :]

    @property
    def nodes(self) -> Mapping[Node, Tensor]:
        """The subtrees summed so far in this round. Transfers may be reading them: copy them."""
        return self._nodes

    def leaf(self) -> Tensor:
        """An uninitialized vector for the next shard, shape (length,); hand it to `push`."""
        return self._free.pop() if self._free else torch.empty(self._length, dtype=self._dtype)

    def push(self, vector: Tensor) -> None:
        """Take the vector of the next shard to do; it belongs to the sum from then on."""
        node = Node(0, self._share.todo[self._pushed])
        self._pushed += 1
        while (sibling := self._nodes.pop(Node(node.level, node.place ^ 1), None)) is not None:
            left, right = (sibling, vector) if node.place % 2 else (vector, sibling)
            left.add_(right)
            self._free.append(right)
            node, vector = Node(node.level + 1, node.place >> 1), left
        self._nodes[node] = vector

    def mark(self, index: int, value: float) -> None:
        """Make `value` this worker's whole contribution to one element, once all is pushed."""
        for node in self._mine:
            self._nodes[node][index] = value
            value = 0.0

    def reset(self) -> None:
        """End a round, or give it up: forget its subtrees."""
        self._free += self._nodes.values()
        self._nodes, self._pushed = {}, 0

    def reduce(self, vector: Tensor) -> None:
        """Write the sum over all shards into this worker's own part of `vector`.

        The other parts may be written to from now on: their receipt is posted at once, for
        a sender waits for it. `gather(vector)` completes it.

        Raises:
            GroupError: a peer is gone; the round has to be done again by another group.
        """
        group, own = self._group, self.own
        assert self._nodes.keys() == set(self._mine), "push every shard of the share"
        incoming = [
            group.receive(self._received[node], worker, _REDUCE_TAG + number)
            for worker, number, node in self._theirs
            if own.stop > own.start
        ]
        outgoing = [
            group.send(self._nodes[node][self.parts[peer]], peer, _REDUCE_TAG + number)
            for peer in _others(group)
            if self.parts[peer].stop > self.parts[peer].start
            for number, node in enumerate(self._mine)
        ]
        self._gathering = self._receive_parts(vector, self.parts)
        wait(incoming)
        self._finish_tree(vector[own])
        wait(outgoing)

    def _finish_tree(self, out: Tensor) -> None:
        """Add up the subtrees' own parts. What was received may be written over, not the own."""
        values = {node: vector[self.own] for node, vector in self._nodes.items()}
        values |= self._received
        untouchable = set(self._nodes)
        if not self._additions:
            out.copy_(values[self._root])
            return
        *earlier, last = self._additions
        for node, left, right in earlier:
            target = next((values[n] for n in (left, right) if n not in untouchable), None)
            if target is None:
                if node not in self._scratch:
                    self._scratch[node] = self._part()
                target = self._scratch[node]
            values[node] = torch.add(values[left], values[right], out=target)
        torch.add(values[last.left], values[last.right], out=out)

    def gather(self, vector: Tensor, parts: Sequence[slice] | None = None) -> None:
        """Fill in the other workers' parts of `vector`, whose own part holds this worker's.

        Args:
            vector: the vector given to `reduce`; with `parts`, any contiguous 1-D tensor.
            parts: the part of every worker, by rank; by default those of the summed vector.

        Raises:
            GroupError: a peer is gone; `vector` may hold some parts and not others.
        """
        wait(self.post_gather(vector, parts))

    def post_gather(self, vector: Tensor, parts: Sequence[slice] | None = None) -> list[Work]:
        """As `gather`, but wait for nothing: the transfers to wait for."""
        group = self._group
        if parts is None:
            parts, works, tag = self.parts, self._gathering, _GATHER_TAG
            self._gathering = []
        else:
            tag = _PARTS_TAG
            works = self._receive_parts(vector, parts, tag)
        own = parts[group.rank]
        if own.stop > own.start:
            works += [group.send(vector[own], peer, tag) for peer in _others(group)]
        return works

    def _receive_parts(
        self, vector: Tensor, parts: Sequence[slice], tag: int = _GATHER_TAG
    ) -> list[Work]:
        return [
            self._group.receive(vector[parts[peer]], peer, tag)
            for peer in _others(self._group)
            if parts[peer].stop > parts[peer].start
        ]


def _others(group: Group) -> list[int]:
    """The other ranks, each worker beginning with its neighbour, so that all links work at once."""
    return [(group.rank + distance) % group.size for distance in range(1, group.size)]
