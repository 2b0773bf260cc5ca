"""`status` of an OptimizationJob: what the operator tells.

Built by the operator, written once a reconcile. Every field is optional and bounded; ratios and
rates are strings, because the Kubernetes API conventions allow no floats.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shardwise.api.base import (
    ATOMIC,
    INT32,
    Count32,
    Count64,
    Name,
    Sha256,
    StatusModel,
    Text,
    Time,
    Type,
    Word,
    map_by,
)
from shardwise.api.compression import MAX_ARTIFACTS, Artifact, CompressionStatus
from shardwise.api.status_failures import CauseCount, LastFailure, LastRecovery, RestartsStatus
from shardwise.api.status_result import Result
from shardwise.api.status_tasks import TasksStatus

State = Literal[
    "Pending",
    "Starting",
    "Running",
    "Recovering",
    "Waiting",
    "Suspending",
    "Suspended",
    "Succeeded",
    "Failed",
    "Invalid",
]


class Condition(StatusModel):
    """One observation about the job."""

    type: Type
    """type is what is observed, for example Succeeded."""

    status: Literal["True", "False", "Unknown"]
    """status is whether it holds."""

    observed_generation: Count64 | None = None
    """observedGeneration is the metadata.generation that the condition was derived from."""

    last_transition_time: Time
    """lastTransitionTime is when status last changed."""

    reason: Type
    """reason is one word for scripts that says why."""

    message: Text
    """message says the same to people, with the numbers and the remedy."""


class Progress(StatusModel):
    """How far the training is."""

    step: Count64 | None = None
    """step is the number of updates done."""

    total_steps: Count64 | None = None
    """totalSteps is the number of updates that the job has."""

    epoch: Count64 | None = None
    """epoch is the pass through the data that is under way, from 0."""

    percent: Annotated[int | None, Field(ge=0, le=100, json_schema_extra=INT32)] = None
    """percent is step as a part of totalSteps; at most 99 while there is a stage after them."""

    stage: Word | None = None
    """stage is what is under way besides training, for example `compression: prune`; absent while
    it trains."""

    estimated_remaining_seconds: Count64 | None = None
    """estimatedRemainingSeconds is how long the rest takes at the current rate."""

    estimated_remaining: Word | None = None
    """estimatedRemaining is the same for people, for example 2m10s."""

    samples_per_second: Word | None = None
    """samplesPerSecond is the rate of the whole group."""

    loss: Word | None = None
    """loss is the loss of the last reported step."""

    last_update_time: Time | None = None
    """lastUpdateTime is when the workers last reported."""


class WorkersStatus(StatusModel):
    """The worker pods."""

    desired: Count32 | None = None
    """desired is the number of workers that the spec asks for."""

    ready: Count32 | None = None
    """ready is the number of workers whose pods run and are connected."""

    min: Count32 | None = None
    """min is the fewest workers that the job goes on with."""

    max: Count32 | None = None
    """max is the most workers that the job may have."""

    standby: Count32 | None = None
    """standby is the number of spare workers that the spec asks for."""

    members: Count32 | None = None
    """members is the number of workers that train."""

    generation: Count64 | None = None
    """generation numbers the memberships of the group; it only grows."""

    summary: Word | None = None
    """summary is ready and desired in one word, for example 3/4."""

    selector: Text | None = None
    """selector is the label selector of the worker pods, for the scale subresource."""

    names: Annotated[tuple[Name, ...] | None, Field(max_length=1024, json_schema_extra=ATOMIC)] = (
        None
    )
    """names are the names of the worker pods, by index. A replaced worker may have an index
    beyond replicas."""


class CodeStatus(StatusModel):
    """The code that the workers run, when it comes from a ConfigMap."""

    config_map: Name | None = None
    """configMap is the ConfigMap that the code came from."""

    sha256: Sha256 | None = None
    """sha256 is the hash of its contents when the workers were created."""


class GoodputPart(StatusModel):
    """The time that went into one kind of work or of waiting."""

    kind: Annotated[str, Field(min_length=1, max_length=63, pattern="^[a-z][A-Za-z]*$")]
    """kind is productive, rendezvous, recovery, checkpoint, retried or waiting."""

    seconds: Word
    """seconds is how long, as a decimal number."""


class CheckpointStatus(StatusModel):
    """The newest checkpoint."""

    step: Count64 | None = None
    """step is the step whose state it holds."""

    time: Time | None = None
    """time is when it was complete."""

    bytes: Count64 | None = None
    """bytes is its size over all workers."""

    seconds: Word | None = None
    """seconds is how long writing it took."""

    error: Text | None = None
    """error is why the last attempt failed; absent when it did not."""


class OptimizationJobStatus(StatusModel):
    """What the operator tells."""

    conditions: Annotated[
        tuple[Condition, ...] | None,
        Field(max_length=16, json_schema_extra=map_by("type")),
    ] = None
    """conditions are the observations about the job: Accepted, Running, Progressing,
    Checkpointed, Suspended, Degraded, Failed, and the one to wait for, Succeeded."""

    observed_generation: Count64 | None = None
    """observedGeneration is the metadata.generation that this status was derived from."""

    state: State | None = None
    """state sums the conditions up in one word for people; scripts should read conditions."""

    reason: Word | None = None
    """reason is the reason of the condition that state follows from."""

    message: Text | None = None
    """message is the message of the condition that state follows from."""

    start_time: Time | None = None
    """startTime is when the workers were first created."""

    completion_time: Time | None = None
    """completionTime is when the job ended, well or not."""

    progress: Progress | None = None
    """progress is how far the training is."""

    workers: WorkersStatus | None = None
    """workers tells about the worker pods."""

    active_seconds: Count64 | None = None
    """activeSeconds is how long the workers have trained, up to the last time that training
    stopped; what came since is the age of the condition Running."""

    recoveries: Count32 | None = None
    """recoveries is how often the training went on after a worker was lost."""

    recoveries_by_cause: Annotated[
        tuple[CauseCount, ...] | None, Field(max_length=32, json_schema_extra=map_by("cause"))
    ] = None
    """recoveriesByCause is how often the group of workers changed, by reason; workers that join
    and changes of replicas are among them."""

    last_recovery: LastRecovery | None = None
    """lastRecovery is the last time that a worker was lost and the training went on."""

    lost_steps: Count64 | None = None
    """lostSteps is how many steps had to be done again because all workers were lost at once."""

    restarts: RestartsStatus | None = None
    """restarts is how many workers failed and were replaced."""

    goodput: Word | None = None
    """goodput is the productive part of the time, between 0 and 1, for example 0.98."""

    goodput_seconds: Annotated[
        tuple[GoodputPart, ...] | None, Field(max_length=32, json_schema_extra=map_by("kind"))
    ] = None
    """goodputSeconds is where the time went, by kind."""

    checkpoint: CheckpointStatus | None = None
    """checkpoint is the newest checkpoint."""

    code: CodeStatus | None = None
    """code is what the workers run, when it comes from a ConfigMap."""

    spec_sha256: Sha256 | None = None
    """specSha256 is the hash of spec.trainer, spec.compression and spec.tasks when the job was
    accepted."""

    last_failure: LastFailure | None = None
    """lastFailure is what went wrong last."""

    result: Result | None = None
    """result is what came out."""

    artifacts: Annotated[
        tuple[Artifact, ...] | None,
        Field(max_length=MAX_ARTIFACTS, json_schema_extra=map_by("name")),
    ] = None
    """artifacts are the files that the compression wrote."""

    compression: CompressionStatus | None = None
    """compression is the model before and after each step of the compression."""

    tasks: TasksStatus | None = None
    """tasks tells about the tasks of a pool."""
