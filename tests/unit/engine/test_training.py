"""The training loop: same bits on any number of workers, and the formula it stands for."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from threads import together
from torch import nn

from shardwise import SGD, AdamW, Task, Tensors, WarmupCosine
from shardwise.engine.data import Order, stretch
from shardwise.engine.flat import FlatModel
from shardwise.engine.plan import Plan
from shardwise.engine.training import Training
from shardwise.engine.usercode import UserCodeError

PLAN = Plan(batch_size=24, shards=8, seed=3, epochs=2)


def make_task(dtype=torch.float32, norm=True, dropout=0.2, **overrides):
    torch.manual_seed(0)
    layers = [nn.Linear(16, 40), nn.BatchNorm1d(40) if norm else nn.Identity(), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(40, 4)).to(dtype)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(112, 16, generator=generator, dtype=dtype)
    y = (x[:, :4] ** 2).argmax(1)
    settings = {
        "model": model,
        "train": Tensors(x, y),
        "evaluation": Tensors(x[:37], y[:37]),
        "loss": lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1], reduction="none"),
        "metrics": lambda m, b: {"accuracy": (m(b[0]).argmax(1) == b[1]).float()},
        "optimizer": SGD(learning_rate=0.1, momentum=0.9),
    }
    return Task(**(settings | overrides))


def outcome(group, training):
    training.join(group)
    losses = []
    while not training.done:
        losses.append(training.step().loss)
    tensors = dict(training.model.named_tensors()) | training.optimizer_state()
    return losses, training.evaluate(), tensors


CASES = {
    "sgd": {},
    "adamw, clipped, cosine": {
        "optimizer": AdamW(learning_rate=0.01),
        "clip_norm": 0.5,
        "schedule": WarmupCosine(warmup_steps=3),
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("partition", ["none", "parameters"])
def test_same_bits_on_any_number_of_workers(case, partition):
    # Dropout draws from torch's generator too: it is tested with processes, in tests/local.
    alone = Training(make_task(dropout=0.0, **CASES[case]), PLAN)
    losses = []
    while not alone.done:
        losses.append(alone.step().loss)
    expected = dict(alone.model.named_tensors()) | alone.optimizer_state()
    evaluation = alone.evaluate()
    assert losses[-1] < losses[0]
    assert set(evaluation) == {"loss", "accuracy"}
    plan = dataclasses.replace(PLAN, partition=partition)
    for workers in (2, 3, 5, 8):
        # Made one after the other: threads share torch's generator, which draws initial weights.
        trainings = [Training(make_task(dropout=0.0, **CASES[case]), plan) for _ in range(workers)]
        results = together(workers, lambda group, own=trainings: outcome(group, own[group.rank]))
        for rank, (other_losses, other_evaluation, tensors) in enumerate(results):
            assert other_losses == losses
            assert tensors.keys() == expected.keys()
            assert all(torch.equal(tensors[name], expected[name]) for name in expected)
            if rank == 0:
                assert other_evaluation == evaluation


def test_the_summed_gradient_is_the_full_batchs():
    """∇J(θ) = Σᵢ ∇J(θᵢ), in float64, with batch statistics and dropout off."""
    task = make_task(torch.float64, norm=False, dropout=0.0, optimizer=SGD(learning_rate=1.0))
    plan = dataclasses.replace(PLAN, epochs=None, steps=1)
    training = Training(task, plan)
    model = task.model
    before = training.model.parameters.clone()
    order = plan.order(112)
    batch = task.train.batch(order.batch(0, order.permutation(0)))
    gradient = torch.zeros_like(before)
    training.model.gradient(task.loss(model, batch).mean(), gradient)
    training.step()
    torch.testing.assert_close(before - training.model.parameters, gradient, rtol=0, atol=1e-15)


def test_batch_statistics_follow_the_shards():
    """A running mean moves by the mean of the shards' own, weighted by their samples."""
    task, plan = make_task(dropout=0.0), dataclasses.replace(PLAN, epochs=None, steps=1)
    training = Training(task, plan)
    order = plan.order(112)
    indices = order.batch(0, order.permutation(0))
    first = task.model[0]
    means = []
    for shard in range(plan.shards):
        x, _ = task.train.batch(indices[stretch(len(indices), plan.shards, shard)])
        means.append(first(x).mean(0).detach())
    training.step()
    expected = 0.1 * torch.stack(means).mean(0)  # momentum 0.1, from a running mean of 0
    torch.testing.assert_close(task.model[1].running_mean, expected)
    assert int(task.model[1].num_batches_tracked) == 1


def test_the_order_follows_from_seed_and_epoch():
    order = Order(samples=10, batch_size=4, seed=5)
    assert order.steps_per_epoch == 3
    first, second = order.permutation(0), order.permutation(1)
    assert torch.equal(first, order.permutation(0))
    assert not torch.equal(first, second)
    assert not torch.equal(first, Order(samples=10, batch_size=4, seed=6).permutation(0))
    epoch = torch.cat([order.batch(step, first) for step in range(3)])
    assert sorted(epoch.tolist()) == list(range(10))


def test_stretches_cover_and_differ_by_one():
    for length in (0, 1, 7, 8, 20):
        parts = [range(length)[stretch(length, 8, part)] for part in range(8)]
        assert [i for part in parts for i in part] == list(range(length))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_tied_and_frozen_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4, bias=False)
            self.outer = nn.Linear(4, 4, bias=False)
            self.outer.weight = self.inner.weight
            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    flat = FlatModel(Tied())
    assert [entry.name for entry in flat.entries] == ["inner.weight"]
    flat.parameters[0] = 5.0
    assert float(flat.model.outer.weight.detach()[0, 0]) == 5.0
    assert set(dict(flat.named_tensors())) == {"inner.weight", "outer.weight", "frozen"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"loss": lambda m, b: m(b[0]).mean()}, r"loss gave shape \(\) for 3 samples"),
        ({"loss": lambda m, b: m(b[0]).sum(1) * float("nan")}, "the loss of step 1 is nan"),
        ({"loss": lambda m, b: m(b[1])}, "loss raised RuntimeError"),
        ({"model": nn.ReLU()}, "the model raised ValueError: the model has no parameter"),
    ],
)
def test_what_user_code_gets_wrong_is_named(overrides, message):
    with pytest.raises(UserCodeError, match=message):
        Training(make_task(**overrides), PLAN).step()


def test_a_metric_of_the_wrong_shape_is_named():
    training = Training(make_task(metrics=lambda m, b: {"accuracy": torch.ones(())}), PLAN)
    with pytest.raises(UserCodeError, match="metric 'accuracy' gave shape"):
        training.evaluate()


def test_the_digest_tells_states_apart():
    one, same = Training(make_task(), PLAN), Training(make_task(), PLAN)
    assert one.digest() == same.digest()
    one.step()
    assert one.digest() != same.digest()
