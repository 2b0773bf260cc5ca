"""Types and reasons of an OptimizationJob's conditions: the words that scripts may rely on.

Written by the operator, read by users, the CLI and tests. Nothing here decides anything.
"""

from __future__ import annotations

from typing import Final

# Types. Each says something that is true or false now; together they are not a state machine.
ACCEPTED: Final = "Accepted"
"""The spec is valid and its workers may be created."""
RUNNING: Final = "Running"
"""A group of workers trains."""
PROGRESSING: Final = "Progressing"
"""The step counter moves."""
CHECKPOINTED: Final = "Checkpointed"
"""The newest checkpoint was written well; absent where the spec asks for none."""
SUSPENDED: Final = "Suspended"
"""The job stands still because its spec says so, and has no workers."""
DEGRADED: Final = "Degraded"
"""The job goes on with fewer workers than it should have, or refuses one."""
FAILED: Final = "Failed"
"""The job ended without a result."""
SUCCEEDED: Final = "Succeeded"
"""The job ended with its result written: the summary to wait for."""

TYPES: Final = (
    ACCEPTED,
    RUNNING,
    PROGRESSING,
    CHECKPOINTED,
    SUSPENDED,
    DEGRADED,
    FAILED,
    SUCCEEDED,
)

# Reasons of Accepted.
VALID: Final = "Valid"
INVALID_SPEC: Final = "InvalidSpec"
NAME_TOO_LONG: Final = "NameTooLong"
IMMUTABLE_FIELD_CHANGED: Final = "ImmutableFieldChanged"
CONFIG_MAP_MISSING: Final = "ConfigMapMissing"
REPLICAS_CLAMPED: Final = "ReplicasClamped"

# Why the workers are not all there yet.
WAITING_FOR_WORKERS: Final = "WaitingForWorkers"
IMAGE_PULL_FAILED: Final = "ImagePullFailed"
UNSCHEDULABLE: Final = "Unschedulable"
CONTAINER_CONFIG_ERROR: Final = "ContainerConfigError"
QUOTA_EXCEEDED: Final = "QuotaExceeded"
FORBIDDEN: Final = "Forbidden"
NAME_TAKEN: Final = "NameTaken"
SCHEDULING_GATED: Final = "SchedulingGated"
SIDECAR_FAILED: Final = "SidecarFailed"
STARTUP_SLOW: Final = "StartupSlow"
RECOVERING: Final = "Recovering"
SUSPENDING: Final = "Suspending"
RESUMED: Final = "Resumed"

# What goes wrong in the operator, or between it and the API server.
RECONCILE_FAILED: Final = "ReconcileFailed"
STATUS_REFUSED: Final = "StatusRefused"

# While it trains.
TRAINING: Final = "Training"
STALLED: Final = "Stalled"
ALL_WORKERS: Final = "AllWorkers"
FEWER_WORKERS: Final = "FewerWorkers"
CHECKPOINT_PENDING: Final = "CheckpointPending"
CHECKPOINT_WRITTEN: Final = "CheckpointWritten"
CHECKPOINT_FAILED: Final = "CheckpointFailed"

# Why a worker, or the job, failed.
USER_CODE_FAILED: Final = "UserCodeFailed"
NOT_FINITE: Final = "NotFinite"
WORKER_LOST: Final = "WorkerLost"
OUT_OF_MEMORY: Final = "OutOfMemory"
INIT_CONTAINER_FAILED: Final = "InitContainerFailed"
EVICTED: Final = "Evicted"
PREEMPTED: Final = "Preempted"
REJECTED_BY_NODE: Final = "RejectedByNode"
NODE_LOST: Final = "NodeLost"
RESTART_BUDGET_EXCEEDED: Final = "RestartBudgetExceeded"
STARTUP_DEADLINE_EXCEEDED: Final = "StartupDeadlineExceeded"
ACTIVE_DEADLINE_EXCEEDED: Final = "ActiveDeadlineExceeded"
OUTPUT_FAILED: Final = "OutputFailed"
REFUSED_WORKER: Final = "RefusedWorker"

# Why a pool of tasks failed.
INVALID_TASKS: Final = "InvalidTasks"
TOO_MANY_FAILED_TASKS: Final = "TooManyFailedTasks"
NO_TASK_SUCCEEDED: Final = "NoTaskSucceeded"

# How it ended well.
COMPLETED: Final = "Completed"

REASONS: Final = (
    VALID,
    INVALID_SPEC,
    NAME_TOO_LONG,
    IMMUTABLE_FIELD_CHANGED,
    CONFIG_MAP_MISSING,
    REPLICAS_CLAMPED,
    WAITING_FOR_WORKERS,
    IMAGE_PULL_FAILED,
    UNSCHEDULABLE,
    CONTAINER_CONFIG_ERROR,
    QUOTA_EXCEEDED,
    FORBIDDEN,
    NAME_TAKEN,
    SCHEDULING_GATED,
    SIDECAR_FAILED,
    STARTUP_SLOW,
    RECOVERING,
    SUSPENDING,
    SUSPENDED,
    RESUMED,
    RECONCILE_FAILED,
    STATUS_REFUSED,
    TRAINING,
    STALLED,
    ALL_WORKERS,
    FEWER_WORKERS,
    CHECKPOINT_PENDING,
    CHECKPOINT_WRITTEN,
    CHECKPOINT_FAILED,
    USER_CODE_FAILED,
    NOT_FINITE,
    WORKER_LOST,
    OUT_OF_MEMORY,
    INIT_CONTAINER_FAILED,
    EVICTED,
    PREEMPTED,
    REJECTED_BY_NODE,
    NODE_LOST,
    RESTART_BUDGET_EXCEEDED,
    STARTUP_DEADLINE_EXCEEDED,
    ACTIVE_DEADLINE_EXCEEDED,
    OUTPUT_FAILED,
    REFUSED_WORKER,
    INVALID_TASKS,
    TOO_MANY_FAILED_TASKS,
    NO_TASK_SUCCEEDED,
    COMPLETED,
)
