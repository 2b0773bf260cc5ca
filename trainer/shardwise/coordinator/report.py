"""What goes into the coordinator for a task, and what it tells of one.

Plain records, shared by the coordinator, the operator and local mode. They hold no behaviour, and
nothing here knows of sockets, of Kubernetes or of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

TaskState = Literal["waiting", "forming", "training", "finished", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task for one group of workers; what every worker is welcomed with."""

    task: str
    """The task's key in the coordinator; namespace/name in a cluster."""
    name: str
    """The job's name: the output goes into a folder of this name."""
    workers: int
    """How many distinct indices form the group."""
    trainer: Mapping[str, Any]
    """`spec.trainer` as the manifest has it (camelCase keys)."""
    output: Mapping[str, Any] | None = None
    """`spec.output`, for what a worker may want to know of it."""
    generation_floor: int = 0
    """Generations are numbered above this: the high-water mark of an earlier coordinator."""
    report_seconds: float = 5.0
    """How often rank 0 sends its progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a task is, with the rate and remaining time that the last few reports agree on."""

    step: int
    total_steps: int
    epoch: int
    loss: float
    """May be NaN or infinite: a diverged training is reported as it is."""
    samples_per_second: float
    eta_seconds: float | None
    """None until enough steps were seen to tell."""
    at: float
    """When the last report came, in the coordinator's clock: Unix seconds."""
    metrics: Mapping[str, float]
    """The last evaluation's metrics; empty before the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a task ended without a result."""

    reason: str
    """A CamelCase word for a condition's reason: UserCodeFailed, WorkerLost, RefusedWorker, ..."""
    message: str
    """One line: what happened, and what to do."""
    detail: str = ""
    """More of it, e.g. the last lines of a traceback."""
    worker: str | None = None
    """The worker that it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """A task as the coordinator sees it now."""

    state: TaskState
    generation: int
    """The highest generation so far: the floor for a coordinator started after this one."""
    connected: tuple[str, ...]
    """Workers with a live connection, by index."""
    workers: int
    progress: Progress | None
    failure: Failure | None
    result: Mapping[str, Any] | None
