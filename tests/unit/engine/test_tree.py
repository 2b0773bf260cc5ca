"""The tree over shards, the blocks of workers, and the sums over them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import together

from shardwise.engine.exchange import TreeSum
from shardwise.engine.flat import BLOCK
from shardwise.engine.tree import additions, blocks, covering, root, subtrees

shapes = st.integers(1, 40).flatmap(lambda s: st.tuples(st.just(s), st.integers(1, s)))


@given(shapes)
def test_blocks_are_contiguous_and_as_short_as_they_can_be(shape):
    shards, workers = shape
    cut = blocks(shards, workers)
    assert [shard for block in cut for shard in block] == list(range(shards))
    assert len(cut) == workers
    assert all(1 <= len(block) <= -(-shards // workers) for block in cut)


@given(shapes)
def test_subtrees_cover_their_block_and_no_two_are_siblings(shape):
    for block in blocks(*shape):
        nodes = subtrees(block.start, block.stop)
        assert [shard for node in nodes for shard in range(node.first, node.end)] == list(block)
        pairs = {(node.level, node.place) for node in nodes}
        assert not any((level, place ^ 1) in pairs and place % 2 == 0 for level, place in pairs)


@given(st.sets(st.integers(0, 40)))
def test_covering_is_the_largest_complete_subtrees(shards):
    nodes = covering(shards)
    assert [shard for node in nodes for shard in range(node.first, node.end)] == sorted(shards)
    assert not any(node._replace(place=node.place ^ 1) in nodes for node in nodes)


@given(shapes)
def test_covering_a_block_is_its_subtrees(shape):
    for block in blocks(*shape):
        assert covering(block) == subtrees(block.start, block.stop)


def in_tree_order(leaves, node, shards):
    """The reference: the definition of the tree, written as a recursion over its nodes."""
    if node.level == 0:
        return leaves[node.place]
    left, right = node.children
    if right.first >= shards:
        return in_tree_order(leaves, left, shards)
    return in_tree_order(leaves, left, shards) + in_tree_order(leaves, right, shards)


@given(shapes)
def test_every_partition_adds_in_the_order_of_the_tree(shape):
    shards, workers = shape
    values = {}
    leaves = [f"{shard}" for shard in range(shards)]

    class Term(str):
        def __add__(self, other):
            return Term(f"({self!s}+{other!s})")

    terms = [Term(leaf) for leaf in leaves]
    nodes = [node for block in blocks(shards, workers) for node in covering(block)]
    for node in nodes:
        values[node] = in_tree_order(terms, node, shards)
    top, plan = additions(shards, frozenset(nodes))
    for node, left, right in plan:
        values[node] = values[left] + values[right]
    assert values[top] == in_tree_order(terms, root(shards), shards)


def test_a_shard_that_nobody_has_is_an_error():
    with pytest.raises(ValueError, match="shard 2 is not covered"):
        additions(4, frozenset(subtrees(0, 2)) | frozenset(subtrees(3, 4)))


def test_more_workers_than_shards_is_an_error():
    with pytest.raises(ValueError, match="9 workers cannot share 8 shards"):
        blocks(8, 9)


def tree_sum(shards, workers, vectors):
    def work(group):
        exchange = TreeSum(group, shards, vectors.shape[1], vectors.dtype)
        total = torch.empty(vectors.shape[1], dtype=vectors.dtype)
        for _ in range(2):  # the second round reuses the first one's buffers
            for shard in exchange.todo:
                leaf = exchange.leaf()
                leaf.copy_(vectors[shard])
                exchange.push(leaf)
            exchange.reduce(total)
            exchange.gather(total)
            exchange.reset()
        return total

    return together(workers, work)


@settings(max_examples=25, deadline=None)
@given(shapes.filter(lambda s: s[1] <= 9), st.integers(1, 12), st.integers(0, 2**31))
def test_the_sum_has_the_same_bits_on_any_number_of_workers(shape, width, seed):
    shards, workers = shape
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(shards, width * BLOCK, generator=generator) * 1e3
    expected = in_tree_order(list(vectors), root(shards), shards)
    for total in tree_sum(shards, workers, vectors):
        assert torch.equal(total, expected)


def test_a_plain_sum_over_workers_has_other_bits():
    """The control: without the tree, the number of workers shows in the result."""
    vectors = torch.randn(8, 4 * BLOCK, generator=torch.Generator().manual_seed(0))
    sums = {
        workers: sum((vectors[list(block)].sum(0) for block in blocks(8, workers)[1:]),
                     start=vectors[list(blocks(8, workers)[0])].sum(0))
        for workers in (1, 2, 3, 5)
    }  # fmt: skip
    assert len({tuple(total.tolist()) for total in sums.values()}) > 1
