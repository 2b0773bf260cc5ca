"""The examples' tasks, with a worker that dies between handing its part of a sum to one peer and
to the next: the one commits the step, the others cannot.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from shardwise import Task
from shardwise.engine.exchange import _GATHER_TAG
from shardwise.engine.schedules import Schedule
from shardwise.examples import digits, fashion_mnist
from shardwise.worker.peers import PeerGroup

STEP, WORKER = 50, 2
MARKER = "SPLIT_COMMIT_MARKER"
"""Environment variable: the file that is made when it has happened."""
COMMIT_SECONDS = 0.1
"""For the peer to commit, while the others wait: less than makes them suspicious."""


@dataclasses.dataclass(frozen=True)
class Split:
    """A schedule that is asked between a step's two exchanges."""

    schedule: Schedule

    def factor(self, step: int, total_steps: int) -> float:
        name = Path("/proc/self/comm").read_text().strip()
        if step == STEP and name == f"shardwise-{WORKER}" and not Path(os.environ[MARKER]).exists():
            Path(os.environ[MARKER]).touch()
            _die_after_one_part()
        return self.schedule.factor(step, total_steps)


def _die_after_one_part() -> None:
    send = PeerGroup.send

    def once(self: PeerGroup, tensor: Tensor, to: int, tag: int) -> Any:
        work = send(self, tensor, to, tag)
        if tag == _GATHER_TAG:
            work.wait()
            threading.Event().wait(COMMIT_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
        return work

    PeerGroup.send = once  # type: ignore[method-assign]


def _split(task: Callable[..., Task]) -> Callable[..., Task]:
    @functools.wraps(task)
    def split(*arguments: Any, **parameters: Any) -> Task:
        made = task(*arguments, **parameters)
        return dataclasses.replace(made, schedule=Split(made.schedule))

    return split


digits_task, fashion_mnist_task = _split(digits.task), _split(fashion_mnist.task)
