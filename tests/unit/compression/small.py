"""A small task that trains in a moment, and runs of a pipeline over groups of threads."""

from __future__ import annotations

import copy
import dataclasses
import hashlib

import torch
from threads import together
from torch import nn

from shardwise import SGD, Task, Tensors
from shardwise.api.compression import Compression
from shardwise.compression.deployment import deploy
from shardwise.compression.pipeline import Pipeline
from shardwise.engine.group import Alone
from shardwise.engine.plan import Plan
from shardwise.engine.training import Training

PLAN = Plan(batch_size=32, shards=4, seed=3, epochs=6)


def make_task(width=24, convolution=False, **overrides):
    torch.manual_seed(0)
    if convolution:
        model = nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width, 4),
        )
    else:
        model = nn.Sequential(
            nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
        )
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 16, generator=generator)
    y = (x[:, :4] + 0.5 * x[:, 4:8]).argmax(1)
    settings = {
        "model": model,
        "train": Tensors(x[:300], y[:300]),
        "evaluation": Tensors(x[300:], y[300:]),
        "loss": lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1], reduction="none"),
        "metrics": lambda m, b: {"accuracy": (m(b[0]).argmax(1) == b[1]).float()},
        "optimizer": SGD(learning_rate=0.1, momentum=0.9),
    }
    return Task(**(settings | overrides))


def trained(**options):
    training = Training(make_task(**options), PLAN)
    while not training.done:
        training.step()
    return training.task


_made = {}


def load(wanted):
    """As a worker's: the same initial weights whenever it is asked."""
    options = wanted.get("parameters") or {}
    key = tuple(sorted(options.items()))
    if key not in _made:
        _made[key] = make_task(**options)
    return copied(_made[key])


def pipeline(task, spec, plan=PLAN):
    calibration = {"samples": 100, "batchSize": 8}
    return Pipeline(task, validated({"calibration": calibration} | spec), plan, load=load)


def validated(spec):
    """As a manifest's; steps get names where they have none."""
    steps = [{"name": f"step-{i}"} | step for i, step in enumerate(spec["steps"])]
    return Compression.model_validate(spec | {"steps": steps}).to_json()


def finished(machine, group=None):
    group = group or Alone()
    machine.join(group)
    while not machine.done:
        machine.advance()
    return machine


def digest(machine):
    return hashlib.sha256(deploy(machine.subject).packed()).hexdigest()


def digests(task, spec, workers):
    """What each member of a group of `workers` ends with."""
    load({"parameters": {"width": 8}})  # made here: threads share the generator of weights
    machines = [pipeline(copied(task), spec) for _ in range(workers)]
    ended = together(workers, lambda group: digest(finished(machines[group.rank], group)))
    assert len({str(machine.rows) for machine in machines}) == 1, "all members have the same table"
    return set(ended)


def copied(task):
    return dataclasses.replace(task, model=copy.deepcopy(task.model))
