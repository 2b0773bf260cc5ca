"""The models that published results are measured on here, and compressions of them."""

from __future__ import annotations

import copy
import dataclasses
import functools

import torch
from torch import nn

from shardwise import SGD, Task, WarmupCosine
from shardwise.api.compression import Compression
from shardwise.compression.pipeline import Pipeline
from shardwise.engine.plan import Plan
from shardwise.engine.training import Training
from shardwise.examples import fashion_mnist

PLAN = Plan(batch_size=128, shards=2, seed=1, epochs=8)


@functools.cache
def data():
    images = fashion_mnist.images
    return {"train": images("train"), "evaluation": images("t10k")}


def lenet():
    """LeNet-300-100, as Han et al. 2015 pruned it."""
    torch.manual_seed(0)
    return Task(
        model=nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 300),
            nn.ReLU(),
            nn.Linear(300, 100),
            nn.ReLU(),
            nn.Linear(100, 10),
        ),
        loss=lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1], reduction="none"),
        metrics=lambda m, batch: {"accuracy": (m(batch[0]).argmax(1) == batch[1]).float()},
        optimizer=SGD(learning_rate=0.05, momentum=0.9, weight_decay=1e-4),
        schedule=WarmupCosine(warmup_steps=50),
        **data(),
    )


def convolutional():
    """The CNN of examples/fashion_mnist, 50,282 parameters."""
    torch.manual_seed(0)
    return dataclasses.replace(fashion_mnist.task(width=32), **data())


@functools.cache
def trained(make, epochs):
    torch.set_num_threads(1)
    training = Training(make(), dataclasses.replace(PLAN, epochs=epochs))
    while not training.done:
        training.step()
    return training.task


def compressed(task, *steps, samples=1024):
    """The finished pipeline; its table goes to standard output. A student is a LeNet-300-100."""
    spec = {
        "steps": [{"name": f"step-{number}", **step} for number, step in enumerate(steps)],
        "calibration": {"samples": samples, "batchSize": 64},
    }
    chosen = dataclasses.replace(task, model=copy.deepcopy(task.model))
    validated = Compression.model_validate(spec).to_json()
    machine = Pipeline(chosen, validated, PLAN, load=lambda wanted: lenet())
    machine.check()
    while not machine.done:
        machine.advance()
    for row in machine.rows:
        print(
            f"{row.step}: accuracy {100 * row.metrics['accuracy']:.2f} %, {row.bytes:,} bytes, "
            f"{row.nonzeros:,} of {row.parameters:,} weights, {row.macs:,} MACs"
        )
    return machine


def accuracies(machine):
    """In per cent: the trained model's, then after each step."""
    return [100.0 * row.metrics["accuracy"] for row in machine.rows]
