"""The sum of the shards' vectors over all workers, in the tree's order, and the gathering of parts.

Every worker adds up the subtrees of its own shards as they come, sends each other worker the part
of them that it owns, finishes the tree on its own part, and gathers the parts. The traffic is
that of a ring all-reduce when every worker has one subtree; the additions are the tree's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shardwise.engine.flat import cuts
from shardwise.engine.group import Group, Work
from shardwise.engine.tree import Node, additions, blocks, cover

_REDUCE_TAG = 1
_GATHER_TAG = 1 << 20
_PARTS_TAG = 1 << 21


class TreeSum:
    """Sums one vector a shard. One instance serves any number of rounds over the same group.

    Attributes:
        block: the shards that this worker computes, in the order in which to push them.
        own: the part of the vector whose sum this worker finishes.
        parts: that part of every worker, by rank.
    """

    def __init__(self, group: Group, shards: int, length: int, dtype: torch.dtype) -> None:
        self._group = group
        self._length, self._dtype = length, dtype
        partition = blocks(shards, group.size)
        self.block = partition[group.rank]
        self.parts = cuts(length, group.size)
        self.own = self.parts[group.rank]
        owners = list(cover(partition))
        self._mine = [node for worker, node in owners if worker == group.rank]
        self._theirs = [
            (worker, number, node)
            for worker in range(group.size)
            if worker != group.rank
            for number, node in enumerate(node for owner, node in owners if owner == worker)
        ]
        self._root, self._additions = additions(shards, frozenset(node for _, node in owners))
        self._received = {
            node: torch.empty(self.own.stop - self.own.start, dtype=dtype)
            for _, _, node in self._theirs
        }
        self._stack: list[tuple[Node, Tensor]] = []
        self._next = self.block.start
        self._free: list[Tensor] = []
        self._gathering: list[Work] = []

    def leaf(self) -> Tensor:
        """An uninitialized vector for the next shard, shape (length,); hand it to `push`."""
        return self._free.pop() if self._free else torch.empty(self._length, dtype=self._dtype)

    def push(self, vector: Tensor) -> None:
        """Take the vector of the next shard of the block; it belongs to the sum from then on."""
        node = Node(0, self._next)
        self._next += 1
        while self._stack and node.place % 2 == 1 and self._stack[-1][0].level == node.level:
            sibling, total = self._stack.pop()
            total.add_(vector)
            self._free.append(vector)
            node, vector = Node(node.level + 1, sibling.place >> 1), total
        self._stack.append((node, vector))

    def reset(self) -> None:
        """Forget what was pushed since the last round."""
        self._free += [vector for _, vector in self._stack]
        self._stack, self._next = [], self.block.start

    def reduce(self, vector: Tensor) -> None:
        """Write the sum over all shards into this worker's own part of `vector`.

        The other parts may be written to from now on: their receipt is posted at once, because
        gloo's senders wait for it. `gather(vector)` completes it and ends the round.

        Raises:
            GroupError: a peer is gone; the round has to be begun anew.
        """
        group, own = self._group, self.own
        assert [node for node, _ in self._stack] == self._mine, "push every shard of the block"
        incoming = [
            group.receive(self._received[node], worker, _REDUCE_TAG + number)
            for worker, number, node in self._theirs
            if own.stop > own.start
        ]
        outgoing = [
            group.send(vector[self.parts[peer]], peer, _REDUCE_TAG + number)
            for peer in _others(group)
            if self.parts[peer].stop > self.parts[peer].start
            for number, (_, vector) in enumerate(self._stack)
        ]
        self._gathering = self._receive_parts(vector, self.parts)
        _wait(incoming)
        self._finish_tree(vector[own])
        _wait(outgoing)
        self.reset()

    def _finish_tree(self, out: Tensor) -> None:
        # Of the worker's own vectors the own part is sent to nobody, so additions may reuse it.
        values = {node: vector[self.own] for node, vector in self._stack} | self._received
        if not self._additions:
            out.copy_(values[self._root])
            return
        *earlier, last = self._additions
        for node, left, right in earlier:
            values[node] = values[left].add_(values[right])
        torch.add(values[last.left], values[last.right], out=out)

    def gather(self, vector: Tensor, parts: Sequence[slice] | None = None) -> None:
        """Fill in the other workers' parts of `vector`, whose own part holds this worker's.

        Args:
            vector: the vector given to `reduce`; with `parts`, any contiguous 1-D tensor.
            parts: the part of every worker, by rank; by default those of the summed vector.

        Raises:
            GroupError: a peer is gone; `vector` may hold some parts and not others.
        """
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
        _wait(works)

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


def _wait(works: Sequence[Work]) -> None:
    for work in works:
        work.wait()
