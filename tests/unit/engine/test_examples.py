"""The examples' models: the formula in float64, and what a plain all-reduce would do.

Their data is fetched by `make test`; without it these tests fail, and say how to get it.
"""

from __future__ import annotations

import pytest
import torch
from threads import together
from torch import nn

from shardwise import Tensors
from shardwise.engine.data import gather, stretch
from shardwise.engine.exchange import TreeSum
from shardwise.engine.flat import FlatModel, padded
from shardwise.engine.group import Alone
from shardwise.engine.plan import Plan
from shardwise.engine.training import Training
from shardwise.examples import digits, fashion_mnist, shakespeare

EXAMPLES = {
    "digits": digits.task,
    "fashion-mnist": fashion_mnist.task,
    "shakespeare": shakespeare.task,
}


def in_float64(batch):
    return tuple(t.double() if t.is_floating_point() else t for t in batch)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("shards", [4, 7])
def test_the_sum_of_the_shards_gradients_is_the_full_batchs(name, shards):
    """∇J(θ) = Σᵢ ∇J(θᵢ); batch statistics and dropout off."""
    torch.manual_seed(0)
    task = EXAMPLES[name]()
    flat = FlatModel(task.model.double())
    task.model.eval()
    batch = in_float64(gather(task.train, torch.arange(48)))
    full = torch.zeros_like(flat.parameters)
    flat.gradient(task.loss(task.model, batch).mean(), full)

    exchange = TreeSum(Alone(), shards, padded(flat.parameter_length), torch.float64)
    for shard in range(shards):
        part = tuple(tensor[stretch(48, shards, shard)] for tensor in batch)
        leaf = exchange.leaf().zero_()
        flat.gradient(task.loss(task.model, part).sum() / 48, leaf)
        exchange.push(leaf)
    summed = torch.zeros_like(full)
    exchange.reduce(summed)
    assert full.abs().max() > 0
    torch.testing.assert_close(summed, full, rtol=1e-10, atol=1e-14)


class PlainSum(TreeSum):
    """The control: every worker sums its own shards, and the workers' sums are added by rank."""

    plain = None

    def push(self, vector):
        self._pushed += 1
        self.plain = vector if self.plain is None else self.plain.add_(vector)

    def mark(self, index, value):
        """Nobody raises a flag here."""

    def reset(self):
        self.plain, self._pushed = None, 0

    def reduce(self, vector):
        group, vectors = self._group, {self._group.rank: self.plain}
        works = []
        for peer in range(group.size):
            if peer != group.rank:
                vectors[peer] = torch.empty_like(self.plain)
                works.append(group.send(self.plain, peer, 7))
                works.append(group.receive(vectors[peer], peer, 7))
        for work in works:
            work.wait()
        total = vectors[0].clone()
        for peer in range(1, group.size):
            total.add_(vectors[peer])
        vector.copy_(total)

    def post_gather(self, vector, parts=None):
        """Every worker has the whole sum already."""
        return []


@pytest.mark.parametrize(("kind", "distinct"), [(TreeSum, 1), (PlainSum, 4)])
def test_plain_all_reduce_gives_other_weights_for_each_number_of_workers(kind, distinct):
    plan = Plan(batch_size=128, shards=8, seed=7, steps=10)

    def train(group, training):
        training.join(group)
        training.exchange = kind(group, 8, training.exchange._length, torch.float32)
        while not training.done:
            training.step()
        return training.digest()

    digests = set()
    for workers in (1, 2, 3, 5):
        trainings = []
        for _ in range(workers):
            torch.manual_seed(0)
            task = digits.task()
            task.model[2] = nn.Identity()  # dropout draws from a generator that threads share
            assert isinstance(task.train, Tensors)
            trainings.append(Training(task, plan))
        found = together(workers, lambda group, own=trainings: train(group, own[group.rank]))
        assert len(set(found)) == 1, "the workers of one run agree"
        digests.add(found[0])
    assert len(digests) == distinct
