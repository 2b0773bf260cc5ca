"""What a task's group asks its caller to do."""

from __future__ import annotations

from dataclasses import dataclass

from shardwise.coordinator.protocol import FromCoordinator, Stop


@dataclass(frozen=True, slots=True)
class Send:
    """A message to a worker's current connection, if it has one."""

    worker: str
    message: FromCoordinator


@dataclass(frozen=True, slots=True)
class Drop:
    """Cut a worker's current connection: it is out, and may come again."""

    worker: str
    last: Stop | None = None
    """What it is told before."""


Action = Send | Drop
