"""A task whose steps take between 20 and 200 ms, by chance: nobody may be taken for lost.

python tests/benchmarks/recovery/false_alarms.py --seconds 3600
"""

from __future__ import annotations

import random
import threading

import torch
import traced

import shardwise

LEAST_SECONDS, MOST_SECONDS = 0.02, 0.2
_dice = random.Random()
_pause = threading.Event()


def task() -> shardwise.Task:
    def loss(model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        _pause.wait(_dice.uniform(LEAST_SECONDS, MOST_SECONDS))
        return traced.loss(model, batch)

    return shardwise.Task(
        model=traced.model(),
        train=shardwise.Tensors(*traced.data()),
        loss=loss,
        optimizer=shardwise.SGD(learning_rate=0.05),
    )
