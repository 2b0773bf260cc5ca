"""`status` of an OptimizationJob: what the operator tells.

Built by the operator, written once a reconcile. Every field is optional and bounded; ratios and
rates are strings, because the Kubernetes API conventions allow no floats.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue

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
from shardwise.api.compression import MAX_ARTIFACTS, Artifact, CompressionStatus

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


def _map_by(key: str) -> dict[str, JsonValue]:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


Type = Annotated[str, Field(min_length=1, max_length=63, pattern="^[A-Z][A-Za-z]*$")]


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

    time: Time | None = None
    """time is when it went wrong."""

    log_tail: Tail | None = None
    """logTail is the end of its log or of its traceback."""


class CauseCount(StatusModel):
    """How often the group of workers changed for one reason."""

    cause: Type
    """cause is the reason: Killed, Hung, Unreachable, Broken, Preempted, Joined or Resized."""

    count: Count32
    """count is how often."""


class LastRecovery(StatusModel):
    """The last time that a worker was lost and the training went on without it."""

    worker: Name | None = None
    """worker is the pod that was lost."""

    cause: Word | None = None
    """cause is why, as in recoveriesByCause."""

    step: Count64 | None = None
    """step is the step that was under way, and was done again."""

    seconds: Word | None = None
    """seconds is how long it took from noticing the loss to going on."""

    time: Time | None = None
    """time is when it was noticed."""


class Restart(StatusModel):
    """One worker that failed and was replaced, or one stall of the training."""

    uid: Annotated[str, Field(min_length=1, max_length=128)]
    """uid is that of the pod, so that no failure counts twice."""

    pod: Name | None = None
    """pod is the worker that failed; absent for a stall."""

    reason: Word | None = None
    """reason is one word that says why."""

    time: Time
    """time is when it failed."""


class RestartsStatus(StatusModel):
    """Workers that failed and were replaced, and stalls. Those that were preempted, evicted or
    lost with their node do not count."""

    total: Count32 | None = None
    """total is how many there were since the job began."""

    in_window: Count32 | None = None
    """inWindow is how many count against spec.restartPolicy.maxRestarts now."""

    recent: Annotated[
        tuple[Restart, ...] | None, Field(max_length=128, json_schema_extra=_map_by("uid"))
    ] = None
    """recent are those that count now, the oldest first."""

    step: Count64 | None = None
    """step is the step that the training stood at at the last of them."""

    without_progress: Count32 | None = None
    """withoutProgress is how often workers were replaced one after the other without a step in
    between; the waits before the next grow with it."""

    obsolete_time: Time | None = None
    """obsoleteTime is set when the training stalls: workers created up to then are replaced."""


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
        Field(max_length=64, json_schema_extra=_map_by("name")),
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

    pod: Name | None = None
    """pod is the worker that wrote the result."""


TaskState = Literal["Pending", "Running", "Succeeded", "Failed", "Stopped"]
MAX_ROW_PARAMETERS = 16
MAX_ROW_METRICS = 8
MAX_PARETO_ROWS = 32
MAX_TASK_ROWS = 20
MAX_RECORD = 65_536


def _first(count: int) -> BeforeValidator:
    """Cuts a list to its bound: like a text, it is never refused."""
    return BeforeValidator(
        lambda value: value[:count] if isinstance(value, list | tuple) else value
    )


class TaskParameter(StatusModel):
    """One value of a task's own."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """name is the parameter's."""

    value: Word
    """value is what the task has, as text."""


class BestTask(StatusModel):
    """The task that is best by the first objective."""

    name: Annotated[str | None, Field(min_length=1, max_length=63)] = None
    """name is the task's: that of the list, or `task-` and its number in the sweep."""

    state: TaskState | None = None
    """state is Pending, Running, Succeeded, Failed, or Stopped, which is what early stopping does
    to it."""

    parameters: Annotated[
        tuple[TaskParameter, ...] | None,
        Field(max_length=MAX_ROW_PARAMETERS, json_schema_extra=_map_by("name")),
        _first(MAX_ROW_PARAMETERS),
    ] = None
    """parameters are the task's own values; the first 16."""

    metrics: Annotated[
        tuple[Metric, ...] | None,
        Field(max_length=MAX_ROW_METRICS, json_schema_extra=_map_by("name")),
        _first(MAX_ROW_METRICS),
    ] = None
    """metrics are the figures of its last evaluation; the first 8."""

    weights_sha256: Sha256 | None = None
    """weightsSha256 is the hash of its trained weights: the same for any number of workers."""

    step: Count64 | None = None
    """step is the number of its updates done."""

    total_steps: Count64 | None = None
    """totalSteps is the number of updates that it has."""

    workers: Count32 | None = None
    """workers is how many computed it last, or compute it now."""

    seconds: Word | None = None
    """seconds is how long it took, or has taken."""

    reason: Word | None = None
    """reason is one word that says why it failed, for example UserCodeFailed."""

    message: Name | None = None
    """message says the same to people."""


class TaskRow(BestTask):
    """One task."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """name is the task's: that of the list, or `task-` and its number in the sweep."""


class TasksStatus(StatusModel):
    """How far the pool is. The table of all tasks is `tasks.csv` on the output volume."""

    total: Count32 | None = None
    """total is the number of tasks."""

    pending: Count32 | None = None
    """pending is how many of them have not begun."""

    running: Count32 | None = None
    """running is how many are under way."""

    succeeded: Count32 | None = None
    """succeeded is how many were trained to their end."""

    failed: Count32 | None = None
    """failed is how many failed."""

    stopped: Count32 | None = None
    """stopped is how many early stopping has ended."""

    summary: Word | None = None
    """summary is those that have ended and total in one word, for example 37/100."""

    utilization: Word | None = None
    """utilization is the part of the workers' time that went into tasks, between 0 and 1."""

    best: BestTask | None = None
    """best is the best task so far by the first objective; absent where there is none."""

    pareto: Annotated[
        tuple[TaskRow, ...] | None,
        Field(max_length=MAX_PARETO_ROWS, json_schema_extra=_map_by("name")),
        _first(MAX_PARETO_ROWS),
    ] = None
    """pareto are tasks that no other is better than in every objective, where there are several;
    the first 32."""

    items: Annotated[
        tuple[TaskRow, ...] | None,
        Field(max_length=MAX_TASK_ROWS, json_schema_extra=_map_by("name")),
        _first(MAX_TASK_ROWS),
    ] = None
    """items are the tasks under way, then those that ended last; at most 20."""

    record: Annotated[str | None, Field(max_length=MAX_RECORD)] = None
    """record is what a new coordinator goes on from: the results of all tasks, packed."""


class OptimizationJobStatus(StatusModel):
    """What the operator tells."""

    conditions: Annotated[
        tuple[Condition, ...] | None,
        Field(max_length=16, json_schema_extra=_map_by("type")),
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
        tuple[CauseCount, ...] | None, Field(max_length=32, json_schema_extra=_map_by("cause"))
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
        tuple[GoodputPart, ...] | None, Field(max_length=32, json_schema_extra=_map_by("kind"))
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
        Field(max_length=MAX_ARTIFACTS, json_schema_extra=_map_by("name")),
    ] = None
    """artifacts are the files that the compression wrote."""

    compression: CompressionStatus | None = None
    """compression is the model before and after each step of the compression."""

    tasks: TasksStatus | None = None
    """tasks tells about the tasks of a pool."""
