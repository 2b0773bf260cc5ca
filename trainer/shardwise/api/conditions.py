"""Types and reasons of an OptimizationJob's conditions: the words that scripts may rely on.

Written by the operator, read by users, the CLI and tests. Nothing here decides anything.
"""

from __future__ import annotations

from typing import Final

# Types. Each says something that is true or false now; together they are not a state machine.
ACCEPTED: Final = "Accepted"
"""The spec is valid and its workers may be created."""
RUNNING: Final = "Running"
"""All workers of the group are connected and train."""
PROGRESSING: Final = "Progressing"
"""The step counter moves."""
FAILED: Final = "Failed"
"""The job ended without a result."""
SUCCEEDED: Final = "Succeeded"
"""The job ended with its result written: the summary to wait for."""

TYPES: Final = (ACCEPTED, RUNNING, PROGRESSING, FAILED, SUCCEEDED)

# Reasons of Accepted.
VALID: Final = "Valid"
INVALID_SPEC: Final = "InvalidSpec"
NAME_TOO_LONG: Final = "NameTooLong"
IMMUTABLE_FIELD_CHANGED: Final = "ImmutableFieldChanged"
CONFIG_MAP_MISSING: Final = "ConfigMapMissing"

# Why the workers are not all there yet.
WAITING_FOR_WORKERS: Final = "WaitingForWorkers"
IMAGE_PULL_FAILED: Final = "ImagePullFailed"
UNSCHEDULABLE: Final = "Unschedulable"
CONTAINER_CONFIG_ERROR: Final = "ContainerConfigError"
QUOTA_EXCEEDED: Final = "QuotaExceeded"
FORBIDDEN: Final = "Forbidden"

# While it trains.
TRAINING: Final = "Training"
STALLED: Final = "Stalled"

# Why it failed.
USER_CODE_FAILED: Final = "UserCodeFailed"
WORKER_LOST: Final = "WorkerLost"
OUT_OF_MEMORY: Final = "OutOfMemory"
EVICTED: Final = "Evicted"
STARTUP_DEADLINE_EXCEEDED: Final = "StartupDeadlineExceeded"
ACTIVE_DEADLINE_EXCEEDED: Final = "ActiveDeadlineExceeded"
OUTPUT_FAILED: Final = "OutputFailed"
REFUSED_WORKER: Final = "RefusedWorker"

# How it ended well.
COMPLETED: Final = "Completed"

REASONS: Final = (
    VALID,
    INVALID_SPEC,
    NAME_TOO_LONG,
    IMMUTABLE_FIELD_CHANGED,
    CONFIG_MAP_MISSING,
    WAITING_FOR_WORKERS,
    IMAGE_PULL_FAILED,
    UNSCHEDULABLE,
    CONTAINER_CONFIG_ERROR,
    QUOTA_EXCEEDED,
    FORBIDDEN,
    TRAINING,
    STALLED,
    USER_CODE_FAILED,
    WORKER_LOST,
    OUT_OF_MEMORY,
    EVICTED,
    STARTUP_DEADLINE_EXCEEDED,
    ACTIVE_DEADLINE_EXCEEDED,
    OUTPUT_FAILED,
    REFUSED_WORKER,
    COMPLETED,
)
