"""The model that all systems train here, and a trace of when each of its steps is done.

An MLP of 0.4 M parameters on random data. A line `seconds step` is appended to the file named by
TRACE whenever a worker computes an update, which is a millisecond before it commits it.
"""

from __future__ import annotations

import os
import time

import torch
from torch import nn
from torch.nn import functional

import shardwise

WIDTH, HIDDEN, CLASSES, SAMPLES = 256, 512, 10, 4096


class Traced(shardwise.Constant):
    """A constant learning rate that leaves a trace."""

    def factor(self, step: int, total: int) -> float:
        trace(step)
        return super().factor(step, total)


def trace(step: int) -> None:
    descriptor = os.open(os.environ["TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{time.time():.6f} {step} {os.getpid()}\n".encode())
    os.close(descriptor)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, CLASSES),
    )


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, WIDTH, generator=generator)
    return inputs, torch.randint(0, CLASSES, (SAMPLES,), generator=generator)


def loss(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, labels = batch
    return functional.cross_entropy(net(inputs), labels, reduction="none")


def task() -> shardwise.Task:
    return shardwise.Task(
        model=model(),
        train=shardwise.Tensors(*data()),
        loss=loss,
        optimizer=shardwise.SGD(learning_rate=0.05, momentum=0.9),
        schedule=Traced(),
    )
