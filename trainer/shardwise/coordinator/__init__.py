"""The coordinator: numbers the generations of each task's group and gathers its progress."""

from __future__ import annotations

from shardwise.coordinator.admission import Authenticate, Credential, Identity
from shardwise.coordinator.protocol import Hello, ProtocolError, Refused
from shardwise.coordinator.report import (
    Assignment,
    Cause,
    CheckpointState,
    Failure,
    Loss,
    PoolAssignment,
    Progress,
    TaskReport,
    TaskRow,
    TasksReport,
    TaskState,
)
from shardwise.coordinator.service import Coordinator

__all__ = [
    "Assignment",
    "Authenticate",
    "Cause",
    "CheckpointState",
    "Coordinator",
    "Credential",
    "Failure",
    "Hello",
    "Identity",
    "Loss",
    "PoolAssignment",
    "Progress",
    "ProtocolError",
    "Refused",
    "TaskReport",
    "TaskRow",
    "TaskState",
    "TasksReport",
]
