"""What a decision may ask for. Plain records; `apply` carries each out with one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from shardwise.coordinator.report import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateService:
    """The headless Service that gives the workers their host names; the NetworkPolicy too, where
    jobs get one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePod:
    """The worker of one index."""

    index: int
    trainer: Mapping[str, Any] = field(hash=False)
    """The accepted trainer, compression and tasks: those of the job's other pods where there are
    any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePod:
    """A pod that is not wanted, or has failed; by uid, so no later pod can be hit."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTask:
    """Let the coordinator take in the job's workers."""

    workers: int
    min_workers: int
    trainer: Mapping[str, Any] = field(hash=False)
    """The accepted trainer, compression and tasks."""
    generation_floor: int
    checkpoint: Mapping[str, Any] | None = field(default=None, hash=False)
    """spec.checkpoint."""
    detection_seconds: float = 0.5
    recoveries: Mapping[str, int] = field(default_factory=dict, hash=False)
    """What an earlier coordinator counted, by cause."""
    seconds: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Where the time went under an earlier coordinator, by kind."""
    lost_steps: int = 0
    reached_step: int = 0
    """The highest step that the status tells of: what begins below it has been lost."""
    record: str = ""
    """What an earlier coordinator knew of the results of the tasks, where there are many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeTask:
    """Let the group have this many members, and go on with no fewer than that."""

    workers: int
    min_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTask:
    """Let all workers write a checkpoint and leave at the next step boundary."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LostWorker:
    """A pod's status tells that its worker is lost, which its connection may not."""

    worker: str
    uid: str
    """The pod's; empty where it is gone."""
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseTask:
    """The coordinator forgets the task; workers that are left get told to stop."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitEvent:
    """An Event for people who look at `kubectl describe`."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    action: str
    """What the operator did, in CamelCase: the action of events.k8s.io."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteJob:
    """The job itself, a while after its end; its pods go with it."""


Action: TypeAlias = (
    CreateService
    | CreatePod
    | DeletePod
    | OpenTask
    | ResizeTask
    | DrainTask
    | LostWorker
    | CloseTask
    | DeleteJob
    | EmitEvent
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, what to tell, and when to look again."""

    actions: tuple[Action, ...]
    status: Mapping[str, Any] | None
    """The whole new status; None to leave it alone."""
    requeue_after: timedelta | None
    why: tuple[str, ...]
    """The decision explained, for logs and tests."""
