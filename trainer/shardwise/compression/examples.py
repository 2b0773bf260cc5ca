"""What the model itself is called with, taken from a call of the task's loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shardwise.compression.errors import CompressionError
from shardwise.engine.data import gather
from shardwise.engine.task import Task
from shardwise.engine.usercode import user_code


@contextmanager
def caught_calls(model: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], Any]]]:
    """The arguments and the result of each call of the model while inside."""
    calls: list[tuple[tuple[Any, ...], Any]] = []

    def note(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        del module
        calls.append((args, result))

    handle = model.register_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()


def example_inputs(task: Task, samples: int = 2) -> tuple[Tensor, ...]:
    """Copies of the model's arguments for the first training samples.

    Raises:
        CompressionError: the loss does not call the model with tensors.
    """
    count = min(samples, len(task.train))
    with user_code("train"):
        batch = gather(task.train, torch.arange(count))
    before = task.model.training
    task.model.eval()
    try:
        with torch.no_grad(), caught_calls(task.model) as calls, user_code("loss"):
            task.loss(task.model, batch)
    finally:
        task.model.train(before)
    if len(calls) != 1 or not all(isinstance(value, Tensor) for value in calls[0][0]):
        raise CompressionError(
            f"loss called the model {len(calls)} times; to export or cut a model, it must be "
            "called once, with tensors as positional arguments"
        )
    # Copies: a view of the data set would be saved with all of its samples.
    return tuple(value.detach().clone() for value in calls[0][0])
