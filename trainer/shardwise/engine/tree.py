"""The fixed binary tree over shards, and how its leaves are dealt to workers.

A sum of floating-point numbers depends on the order of the additions. Here the order is a
property of the number of shards alone: node (level, place) covers the shards
[place << level, (place + 1) << level), and its value is left + right. Where the number of shards
is not a power of two, a missing right half is passed over. Who computes a node never matters.

Pure: integers in, integers out.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import NamedTuple


class Node(NamedTuple):
    """A node of the tree: level 0 is a shard, the root has level `height(shards)`."""

    level: int
    place: int

    @property
    def first(self) -> int:
        return self.place << self.level

    @property
    def end(self) -> int:
        return (self.place + 1) << self.level

    @property
    def children(self) -> tuple[Node, Node]:
        return Node(self.level - 1, 2 * self.place), Node(self.level - 1, 2 * self.place + 1)


def height(shards: int) -> int:
    """The root's level: the least h with 2**h >= shards."""
    return (shards - 1).bit_length()


def root(shards: int) -> Node:
    return Node(height(shards), 0)


def subtrees(first: int, end: int) -> tuple[Node, ...]:
    """The largest complete subtrees that cover the shards [first, end), from left to right."""
    nodes = []
    while first < end:
        level = 0
        while first % (2 << level) == 0 and first + (2 << level) <= end:
            level += 1
        nodes.append(Node(level, first >> level))
        first += 1 << level
    return tuple(nodes)


def covering(shards: Iterable[int]) -> tuple[Node, ...]:
    """The largest complete subtrees that cover any set of shards, from left to right."""
    found: list[Node] = []
    level, nodes = 0, set(shards)
    while nodes:
        pairs = {place >> 1 for place in nodes if place ^ 1 in nodes}
        found += [Node(level, place) for place in nodes if place >> 1 not in pairs]
        level, nodes = level + 1, pairs
    return tuple(sorted(found, key=lambda node: node.first))


class Add(NamedTuple):
    """One addition of the plan: node = left + right."""

    node: Node
    left: Node
    right: Node


def additions(shards: int, known: frozenset[Node]) -> tuple[Node, tuple[Add, ...]]:
    """How the root follows from the nodes `known`: the node that carries it, and the additions.

    Raises:
        ValueError: `known` does not cover all shards.
    """
    plan: list[Add] = []

    def resolve(node: Node) -> Node:
        if node in known:
            return node
        if node.level == 0:
            raise ValueError(f"shard {node.place} is not covered")
        left, right = node.children
        if right.first >= shards:  # the tree is ragged here: the left half stands for the whole
            return resolve(left)
        plan.append(Add(node, resolve(left), resolve(right)))
        return node

    return resolve(root(shards)), tuple(plan)


@functools.lru_cache(maxsize=256)
def blocks(shards: int, workers: int) -> tuple[range, ...]:
    """The contiguous block of shards of each worker.

    No block is longer than ceil(shards / workers), so that the fullest worker has as little to
    compute as possible; among those cuts, the one with the fewest subtrees in all, because every
    subtree is a partial sum that has to be sent.

    Raises:
        ValueError: there are more workers than shards, or none.
    """
    if not 1 <= workers <= shards:
        raise ValueError(f"{workers} workers cannot share {shards} shards")
    longest = -(-shards // workers)
    unreachable: tuple[int, tuple[int, ...]] = (shards + 1, ())
    # best[first] = (fewest subtrees, cuts) for the shards [first, shards) among the workers left
    best: list[tuple[int, tuple[int, ...]]] = [unreachable] * shards + [(0, ())]
    for _ in range(workers):
        best = [
            min(
                (
                    (len(subtrees(first, end)) + best[end][0], (end, *best[end][1]))
                    for end in range(first + 1, min(shards, first + longest) + 1)
                    if best[end][0] <= shards
                ),
                default=unreachable,
            )
            for first in range(shards)
        ] + [unreachable]
    cuts = (0, *best[0][1])
    return tuple(range(a, b) for a, b in itertools.pairwise(cuts))
