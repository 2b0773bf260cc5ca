"""What a decision may ask for. Plain records; `apply` carries each out with one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateService:
    """The headless Service that gives the workers their host names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePod:
    """The worker of one index."""

    index: int
    trainer: Mapping[str, Any] = field(hash=False)
    """The accepted spec.trainer: that of the job's other pods where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePod:
    """A pod that still runs for a job that has failed; by uid, so no later pod can be hit."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTask:
    """Let the coordinator take in the job's workers."""

    workers: int
    trainer: Mapping[str, Any] = field(hash=False)
    generation_floor: int


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


Action: TypeAlias = CreateService | CreatePod | DeletePod | OpenTask | CloseTask | EmitEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, what to tell, and when to look again."""

    actions: tuple[Action, ...]
    status: Mapping[str, Any] | None
    """The whole new status; None to leave it alone."""
    requeue_after: timedelta | None
    why: tuple[str, ...]
    """The decision explained, for logs and tests."""
