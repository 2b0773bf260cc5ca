"""The coordinator: numbers the generations of each task's group and gathers its progress."""

from __future__ import annotations

from shardwise.coordinator.protocol import Hello, ProtocolError, Refused
from shardwise.coordinator.report import Assignment, Failure, Progress, TaskReport, TaskState
from shardwise.coordinator.service import Authenticate, Coordinator, Identity

__all__ = [
    "Assignment",
    "Authenticate",
    "Coordinator",
    "Failure",
    "Hello",
    "Identity",
    "Progress",
    "ProtocolError",
    "Refused",
    "TaskReport",
    "TaskState",
]
