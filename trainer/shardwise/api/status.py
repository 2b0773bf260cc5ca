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
    Tail,
    Text,
    Time,
    Word,
)

State = Literal["Pending", "Starting", "Running", "Succeeded", "Failed", "Invalid", "Waiting"]


class Condition(StatusModel):
    """One observation about the job."""

    type: Annotated[str, Field(min_length=1, max_length=63, pattern="^[A-Z][A-Za-z]*$")]
    """type is what is observed, for example Succeeded."""

    status: Literal["True", "False", "Unknown"]
    """status is whether it holds."""

    observed_generation: Count64 | None = None
    """observedGeneration is the metadata.generation that the condition was derived from."""

    last_transition_time: Time
    """lastTransitionTime is when status last changed."""

    reason: Annotated[str, Field(min_length=1, max_length=63, pattern="^[A-Z][A-Za-z]*$")]
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
    """percent is step as a part of totalSteps."""

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

    generation: Count64 | None = None
    """generation numbers the memberships of the group; it only grows."""

    summary: Word | None = None
    """summary is ready and desired in one word, for example 3/4."""

    selector: Text | None = None
    """selector is the label selector of the worker pods, for the scale subresource."""

    names: Annotated[tuple[Name, ...] | None, Field(max_length=1024, json_schema_extra=ATOMIC)] = (
        None
    )
    """names are the names of the worker pods, by index."""


class CodeStatus(StatusModel):
    """The code that the workers run, when it comes from a ConfigMap."""

    config_map: Name | None = None
    """configMap is the ConfigMap that the code came from."""

    sha256: Sha256 | None = None
    """sha256 is the hash of its contents when the workers were created."""


class LastFailure(StatusModel):
    """What went wrong last."""

    pod: Name | None = None
    """pod is the worker pod that failed."""

    rank: Count32 | None = None
    """rank is its place in the group."""

    node: Name | None = None
    """node is where it ran."""

    exit_code: Annotated[int | None, Field(ge=-255, le=255, json_schema_extra=INT32)] = None
    """exitCode is the exit code of its container."""

    reason: Word | None = None
    """reason is one word that says why, for example UserCodeFailed."""

    message: Text | None = None
    """message says the same to people."""

    log_tail: Tail | None = None
    """logTail is the end of its log or of its traceback."""


class Metric(StatusModel):
    """One figure of the last evaluation."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """name is what was measured, for example accuracy."""

    value: Word
    """value is the figure, as a decimal number."""


class Result(StatusModel):
    """What came out."""

    steps: Count64 | None = None
    """steps is the number of updates that were done."""

    metrics: Annotated[
        tuple[Metric, ...] | None,
        Field(
            max_length=64,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = None
    """metrics are the figures of the last evaluation."""

    weights_sha256: Sha256 | None = None
    """weightsSha256 is the hash of the trained weights: the same for any number of workers."""

    optimizer_sha256: Sha256 | None = None
    """optimizerSha256 is the hash of the optimizer's final state."""

    seconds: Word | None = None
    """seconds is how long the training took."""

    samples_per_second: Word | None = None
    """samplesPerSecond is the rate of the whole group over the whole training."""

    recoveries: Count32 | None = None
    """recoveries is how often the training went on after a worker was lost."""

    path: Text | None = None
    """path is where the files are on the output volume."""


class OptimizationJobStatus(StatusModel):
    """What the operator tells."""

    conditions: Annotated[
        tuple[Condition, ...] | None,
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = None
    """conditions are the observations about the job: Accepted, Running, Progressing, Failed,
    and the one to wait for, Succeeded."""

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

    code: CodeStatus | None = None
    """code is what the workers run, when it comes from a ConfigMap."""

    spec_sha256: Sha256 | None = None
    """specSha256 is the hash of spec.trainer when the job was accepted."""

    last_failure: LastFailure | None = None
    """lastFailure is what went wrong last."""

    result: Result | None = None
    """result is what came out."""
