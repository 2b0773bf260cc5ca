"""A loss, gradient or parameter that is not finite ends the training before the step happens."""

from __future__ import annotations

import re

import pytest
import torch
from threads import together
from torch import nn

from shardwise import SGD, Adam, AdamW, Task, Tensors
from shardwise.engine.plan import Plan
from shardwise.engine.training import Training
from shardwise.engine.usercode import NotFiniteError

OPTIMIZERS = {
    "sgd": SGD(learning_rate=0.1),
    "momentum": SGD(learning_rate=0.1, momentum=0.9),
    "adam": Adam(learning_rate=0.01),
    "adamw": AdamW(learning_rate=0.01),
}


class Slope(torch.autograd.Function):
    """Zero, with a gradient of a test's choice."""

    @staticmethod
    def forward(context, tensor, slope):
        context.shape, context.slope = tensor.shape, slope
        return tensor.new_zeros(())

    @staticmethod
    def backward(context, gradient):
        return gradient.new_full(context.shape, context.slope), None


class Poisoned:
    """A task whose loss or gradient can be spoilt from some moment on, for all workers at once."""

    def __init__(self, optimizer=OPTIMIZERS["momentum"], clip_norm=None, partition="none"):
        self.optimizer, self.clip_norm = optimizer, clip_norm
        self.plan = Plan(batch_size=12, shards=4, seed=3, steps=9, partition=partition)
        self.loss_times, self.slope = 1.0, 0.0

    def loss(self, model, batch):
        x, y = batch
        losses = nn.functional.cross_entropy(model(x), y, reduction="none") * self.loss_times
        return losses + Slope.apply(model[2].bias, self.slope)

    def training(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 600), nn.ReLU(), nn.Linear(600, 4))
        x = torch.randn(48, 8, generator=torch.Generator().manual_seed(1))
        task = Task(
            model=model,
            train=Tensors(x, (x[:, :4] ** 2).argmax(1)),
            loss=self.loss,
            optimizer=self.optimizer,
            clip_norm=self.clip_norm,
        )
        return Training(task, self.plan)


def ends(poisoned, spoil, workers):
    """What each member was told at the step after `spoil`, after two good ones."""
    members = [poisoned.training() for _ in range(workers)]

    def good(group):
        members[group.rank].join(group)
        for _ in range(2):
            members[group.rank].step()

    def bad(group):
        training = members[group.rank]
        training.join(group)
        before = training.digest(), len(training.history)
        with pytest.raises(NotFiniteError) as caught:
            training.step()
        assert training.steps_done == 2
        assert (training.digest(), len(training.history)) == before, "the step has not happened"
        return caught.value.message

    together(workers, good)
    spoil(poisoned)
    return together(workers, bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("partition", ["none", "parameters"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gradient_is_refused_by_all_members_alike(optimizer, clip_norm, partition, value):
    def spoil(poisoned):
        poisoned.slope = value

    poisoned = Poisoned(OPTIMIZERS[optimizer], clip_norm, partition)
    told = ends(poisoned, spoil, workers=3)
    assert len(set(told)) == 1
    assert re.match(r"the gradient of step 3, whose loss is \d\.\d+, makes ", told[0])
    assert "2.bias" in told[0] or " and 3 more" in told[0]  # clipping spreads a NaN to all
    assert "lower the learning rate" in told[0]


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("partition", ["none", "parameters"])
def test_a_loss_is_refused_by_all_members_alike(partition, value):
    def spoil(poisoned):
        poisoned.loss_times = float(value)

    told = ends(Poisoned(partition=partition), spoil, workers=2)
    assert len(set(told)) == 1
    assert told[0].startswith(f"the loss of step 3 is {value}; lower the learning rate")


def test_parameters_that_overflow_are_refused_before_they_are_kept():
    poisoned = Poisoned(SGD(learning_rate=3e38))
    training = poisoned.training()
    poisoned.slope = 10.0
    with pytest.raises(NotFiniteError, match=r"makes 2\.bias NaN or infinite"):
        training.step()
    assert bool(torch.isfinite(training.model.parameters).all())


def test_large_numbers_that_are_finite_pass():
    poisoned = Poisoned(SGD(learning_rate=1e30))
    training = poisoned.training()
    poisoned.slope = 1e7
    training.step()
    assert float(training.model.parameters.abs().max()) > 1e36
