"""A task whose steps take between 60 and 600 ms: nobody may be taken for lost.

All workers' steps are short for a while, then long, so that what was usual is no more; within a
step each worker takes another part of it, so that the quick ones wait for the slow one for longer
than the detection time.
"""

from __future__ import annotations

import random
import threading

import torch
import traced

import shardwise

LEAST_SECONDS, MOST_SECONDS = 0.06, 0.6
STRETCH = 20
"""Steps of about the same length, one after the other."""
_dice = random.Random()
_pause = threading.Event()


class Uneven(shardwise.Constant):
    """A constant learning rate; it tells the loss how long the next step is to take."""

    seconds = LEAST_SECONDS

    def factor(self, step: int, total: int) -> float:
        type(self).seconds = length((step + 1) // STRETCH)
        return super().factor(step, total)


def length(stretch: int) -> float:
    """Seconds of a step: short and long ones take turns, with others between them."""
    extremes = (LEAST_SECONDS, MOST_SECONDS)
    return extremes[stretch // 2 % 2] if stretch % 2 else random.Random(stretch).uniform(*extremes)


def task() -> shardwise.Task:
    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        _pause.wait(Uneven.seconds * (1.0 if _dice.random() < 0.5 else _dice.uniform(0.1, 1.0)))
        return traced.loss(model, batch)

    return shardwise.Task(
        model=traced.model(),
        train=shardwise.Tensors(*traced.data()),
        loss=loss,
        optimizer=shardwise.SGD(learning_rate=0.05),
        schedule=Uneven(),
    )
