"""What a finished task leaves: its result in figures, and the call that writes all files."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shardwise.worker import output
from shardwise.worker.work import Work


def fingerprint() -> dict[str, str | int | float]:
    """What must be the same on all workers for the same bytes, before a task is loaded."""
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpuCapability": torch.backends.cpu.get_cpu_capability(),
        "device": "cpu",
        "exchange": 1,  # what workers speak among each other
    }


def write_result(
    work: Work,
    optimizer: Mapping[str, Tensor],
    *,
    name: str,
    directory: Path,
    place: Mapping[str, Any],
    seconds: float,
    brief: bool = False,
) -> dict[str, Any]:
    """Write the files of a finished job; the result, with hashes and path.

    Args:
        optimizer: the whole state vectors by slot, laid out like the parameters.
        place: what to tell of the group that finished.
        seconds: since this worker was ready.
        brief: as `output.write` has it.

    Raises:
        OutputError: the directory cannot be written to.
    """
    training = work.training
    order, record = training.order, training.history
    full, rest = divmod(training.steps_done, order.steps_per_epoch)
    samples = full * order.samples + min(rest * order.batch_size, order.samples)
    result = {
        "job": name,
        "steps": training.steps_done,
        "metrics": record.last_metrics or {"trainingLoss": record.last_loss or 0.0},
        **place,
        "partition": training.plan.partition,
        "seconds": round(seconds, 3),
        "samplesPerSecond": round(samples / max(seconds, 1e-9), 1),
        "versions": {
            "shardwise": version("shardwise"),
            "python": platform.python_version(),
            **fingerprint(),
            "threads": torch.get_num_threads(),
        },
    }
    named = {
        f"{slot}/{part}": tensor
        for slot, vector in optimizer.items()
        for part, tensor in training.model.named_parts(vector)
    }
    return output.write(
        directory,
        name=name,
        weights=dict(training.model.named_tensors()),
        optimizer=named,
        history=record,
        result=result | _compressed(work, directory, name),
        brief=brief,
    )


def keep(work: Work, *, name: str, directory: Path) -> None:
    """Write what a step of the compression that fails must not take with it: the trained model,
    then the model after each step. There is no result.json before all is done.

    Raises:
        OutputError: the directory cannot be written to.
    """
    assert work.pipeline is not None
    from shardwise.compression import artifacts

    training = work.training
    weights = dict(training.model.named_tensors())
    try:
        output.write_trained(directory, name=name, weights=weights, history=training.history)
        artifacts.keep(work.pipeline, directory)
    except OSError as error:
        raise output.OutputError.of(directory, error) from error


def _compressed(work: Work, directory: Path, name: str) -> dict[str, Any]:
    """Write what the compression made; its artifacts and its table, or nothing."""
    if work.pipeline is None:
        return {}
    from shardwise.compression import artifacts

    try:
        return artifacts.write(work.pipeline, directory, title=name)
    except OSError as error:
        raise output.OutputError.of(directory, error) from error
