"""Shardwise: parallel optimization jobs, the same weights on any number of workers.

What user code imports. The names that need torch are loaded on first use, so that the command
line and the operator, which share this distribution, start without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwise.engine.data import Tensors
    from shardwise.engine.optimizers import SGD, Adam, AdamW
    from shardwise.engine.schedules import Constant, WarmupCosine
    from shardwise.engine.task import Task
    from shardwise.loading import load

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Task",
    "Tensors",
    "WarmupCosine",
    "__version__",
    "load",
]

_HOMES = {
    "Task": "shardwise.engine.task",
    "Tensors": "shardwise.engine.data",
    "SGD": "shardwise.engine.optimizers",
    "Adam": "shardwise.engine.optimizers",
    "AdamW": "shardwise.engine.optimizers",
    "Constant": "shardwise.engine.schedules",
    "WarmupCosine": "shardwise.engine.schedules",
    "load": "shardwise.loading",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'shardwise' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
