"""Small tasks for the tests of recovery, and what they end in when nothing happens."""

from __future__ import annotations

import dataclasses

import torch
from threads import together
from torch import nn

from shardwise import SGD, AdamW, Task, Tensors
from shardwise.engine.plan import Plan
from shardwise.engine.training import Training

PLAN = Plan(batch_size=15, shards=5, seed=3, steps=3)
"""Five shards, so the tree is ragged; an evaluation in the middle, and one at the end."""
ADAMW = {"optimizer": AdamW(learning_rate=0.01), "clip_norm": 0.5}

CASES = {
    "sgd, whole": ("none", {"optimizer": SGD(learning_rate=0.1, momentum=0.9)}),
    "sgd, partitioned": ("parameters", {"optimizer": SGD(learning_rate=0.1, momentum=0.9)}),
    "adamw, whole": ("none", ADAMW),
    "adamw, partitioned": (
        "parameters",
        {"optimizer": AdamW(learning_rate=0.01), "clip_norm": 0.5},
    ),
    "stateless, partitioned": ("parameters", {"optimizer": SGD(learning_rate=0.1)}),
}


def make_training(case, **settings):
    partition, overrides = CASES[case]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 80), nn.BatchNorm1d(80), nn.ReLU(), nn.Linear(80, 20))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(28, 16, generator=generator)
    y = (x[:, :4] ** 2).argmax(1)
    task = Task(
        model=model,
        train=Tensors(x, y),
        evaluation=Tensors(x[:9], y[:9]),
        loss=lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1], reduction="none"),
        metrics=lambda m, b: {"accuracy": (m(b[0]).argmax(1) == b[1]).float()},
        **overrides,
    )
    return Training(task, dataclasses.replace(PLAN, partition=partition, **settings))


def ending(training):
    tensors = dict(training.model.named_tensors())
    tensors |= training.optimizer_state()
    return tensors, list(training.history.rows()), training.history.evaluations


_undisturbed = {}


def undisturbed(case):
    if case not in _undisturbed:
        training = make_training(case)
        while not training.done:
            training.step()
            if training.evaluation_due:
                training.evaluate()
        _undisturbed[case] = ending(training)
    return _undisturbed[case]


def same(one, other):
    assert one[1:] == other[1:]
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def trained(case, steps, members):
    """Members of one group after some steps."""
    trainings = [make_training(case) for _ in range(members)]

    def train(group):
        trainings[group.rank].join(group)
        for _ in range(steps):
            trainings[group.rank].step()
            if trainings[group.rank].evaluation_due:
                trainings[group.rank].evaluate()

    together(members, train)
    return trainings
