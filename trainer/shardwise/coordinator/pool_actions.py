"""What a pool wants done; `pools` does it."""

from __future__ import annotations

from dataclasses import dataclass

from shardwise.coordinator.report import Assignment


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a task's group; `adopt` where its workers may have come from another coordinator."""

    assignment: Assignment
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Let a worker that waits into a task's group."""

    worker: str
    task: str


@dataclass(frozen=True, slots=True)
class Resize:
    """Another number of members is wanted."""

    task: str
    workers: int


@dataclass(frozen=True, slots=True)
class Release:
    """A worker that stands by in a task's group is to come for other work."""

    task: str
    worker: str


@dataclass(frozen=True, slots=True)
class Close:
    """The task is over for its workers: they come again as new processes."""

    task: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Dismiss:
    """A worker that waits may end."""

    worker: str


@dataclass(frozen=True, slots=True)
class Decide:
    """Have the schedule decide on the next stretch, which may take long, and say when it has."""


Action = Open | Place | Resize | Release | Close | Dismiss | Decide
