"""`spec` of an OptimizationJob: what the user asks for.

One source of three things: the CRD's schema, the validation that the CLI and the operator run,
and the values that the engine trains with. Holds no rule across fields (those are in `rules`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from shardwise.api.base import INT32, INT64, OPEN, SAFE_INTEGER, SpecModel
from shardwise.api.compression import Compression
from shardwise.api.parameters import ENTRYPOINT_PATTERN, ParameterName, ParameterValue
from shardwise.api.policy import (
    Checkpoint,
    CleanPodPolicy,
    Manager,
    RestartPolicy,
    Seconds,
    SecondsOrNone,
    StallSeconds,
)
from shardwise.api.tasks import Tasks

IMAGE_PATTERN = r"^\S+$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

MAX_SHARDS = 1024
MAX_PODS = 1024
MAX_PARAMETERS = 64
COMPRESSION = "compression"
"""The key of spec.compression beside the trainer's fields; see `trainer_json`."""
TASKS = "tasks"
"""Likewise that of spec.tasks."""


LABEL_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)

LabelKey = Annotated[str, StringConstraints(max_length=317, pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=LABEL_PATTERN)]
AnnotationValue = Annotated[str, StringConstraints(max_length=4096)]


class CodeSource(SpecModel):
    """Where the entrypoint's code comes from when it is not in the image."""

    config_map: Annotated[str, StringConstraints(max_length=253, pattern=OBJECT_NAME_PATTERN)]
    """configMap is the name of a ConfigMap in the job's namespace. Each of its keys becomes a
    file in a directory that Python imports from, so a key `train.py` is the module `train`."""


class Trainer(SpecModel):
    """What is trained. Its contents alone determine the trained weights, so it never changes."""

    entrypoint: Annotated[str, StringConstraints(max_length=256, pattern=ENTRYPOINT_PATTERN)]
    """entrypoint is the function that returns the Task to optimize, as `module:function`; for
    example `shardwise.examples.digits:task`. It is called with the parameters by name."""

    image: Annotated[str | None, StringConstraints(max_length=512, pattern=IMAGE_PATTERN)] = None
    """image is the container image of the workers. It must contain Shardwise. When it is
    absent, the operator's default trainer image is used."""

    code_from: CodeSource | None = None
    """codeFrom names where the entrypoint's module comes from when it is not in the image."""

    parameters: Annotated[dict[ParameterName, ParameterValue], Field(max_length=MAX_PARAMETERS)] = (
        Field(default_factory=dict, json_schema_extra={"default": {}})
    )
    """parameters are the arguments of the entrypoint, by name. A value is an integer or a
    string; write a fraction in quotes: `learning_rate: "0.05"`."""

    epochs: Annotated[int | None, Field(ge=1, le=1_000_000, json_schema_extra=INT32)] = None
    """epochs is how many times the training data are gone through. Give either epochs or
    steps, not both."""

    steps: Annotated[int | None, Field(ge=1, le=1_000_000_000, json_schema_extra=INT64)] = None
    """steps is the number of updates of the weights. Give either epochs or steps, not both."""

    batch_size: Annotated[int, Field(ge=1, le=1_048_576, json_schema_extra=INT32)]
    """batchSize is the number of samples in the global batch of one step, over all workers."""

    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS, json_schema_extra=INT32)]
    """shards is the number of parts that every batch is cut into. Their gradients are summed in
    a fixed order, so the result does not depend on the number of workers. It is also the most
    workers that the job can use; with spec.tasks, that each of its tasks can use."""

    seed: Annotated[int, Field(ge=0, le=SAFE_INTEGER, json_schema_extra=INT64)] = 0
    """seed is what all random choices follow from: initial weights, order of the data, dropout."""

    evaluate_every_epochs: Annotated[int, Field(ge=0, le=1_000_000, json_schema_extra=INT32)] = 1
    """evaluateEveryEpochs is how often the held-out data are evaluated; 0 means only at the
    end."""

    partition: Literal["none", "parameters"] = "none"
    """partition says what a worker keeps. With `none` every worker keeps the whole optimizer
    state; with `parameters` every worker keeps and updates only its part, which saves memory.
    The trained weights are the same."""

    threads: Annotated[int, Field(ge=1, le=64, json_schema_extra=INT32)] = 1
    """threads is the number of CPU threads that one worker computes with."""


class Workers(SpecModel):
    """How many workers share the job."""

    replicas: Annotated[int, Field(ge=1, le=MAX_SHARDS, json_schema_extra=INT32)] = 1
    """replicas is the number of workers. `kubectl scale` sets it. It changes the time that the
    job takes, never its result."""

    min: Annotated[int, Field(ge=1, le=MAX_SHARDS, json_schema_extra=INT32)] = 1
    """min is the fewest workers that the job goes on with."""

    max: Annotated[int | None, Field(ge=1, le=MAX_SHARDS, json_schema_extra=INT32)] = None
    """max is the most workers that the job may have. When it is absent, it is replicas."""

    standby: Annotated[int, Field(ge=0, le=MAX_PODS, json_schema_extra=INT32)] = 0
    """standby is the number of spare workers beside replicas. They have loaded the task and wait;
    when a worker is lost, one takes its place at once."""

    detection_milliseconds: Annotated[int, Field(ge=100, le=60_000, json_schema_extra=INT32)] = 500
    """detectionMilliseconds is how long it may take to notice a worker that hangs or is cut off
    from the network. A worker that dies is noticed at once, whatever this is. Where the machines
    are overloaded, a larger value avoids that slow workers are taken for lost ones."""

    @property
    def most(self) -> int:
        """`max`, or what it is when it is absent."""
        return self.replicas if self.max is None else self.max


class Output(SpecModel):
    """Where the result goes."""

    volume: Annotated[dict[str, Any], Field(min_length=1, max_length=1, json_schema_extra=OPEN)]
    """volume is a Kubernetes volume source, as in a pod's `volumes` without the name; for
    example `persistentVolumeClaim: {claimName: results}`. The job writes into a directory of
    its own name there."""


class TemplateMetadata(SpecModel):
    """What is added to the metadata of the worker pods."""

    labels: Annotated[dict[LabelKey, LabelValue] | None, Field(max_length=64)] = None
    """labels are added to the worker pods' labels. Shardwise's own labels win."""

    annotations: Annotated[dict[LabelKey, AnnotationValue] | None, Field(max_length=64)] = None
    """annotations are added to the worker pods' annotations."""


class Template(SpecModel):
    """Changes to the worker pods."""

    metadata: TemplateMetadata | None = None
    """metadata has labels and annotations to add to the worker pods."""

    spec: Annotated[dict[str, Any] | None, Field(json_schema_extra=OPEN)] = None
    """spec is a part of a pod's spec, laid over the one that Shardwise makes: resources,
    nodeSelector, tolerations, volumes. Containers are merged by name; the worker's container
    is `trainer`."""


class OptimizationJobSpec(SpecModel):
    """What the user asks for."""

    trainer: Trainer
    """trainer is what is trained. It alone determines the trained weights, and it cannot be
    changed after the job is created."""

    workers: Workers = Field(default_factory=Workers, json_schema_extra={"default": {}})
    """workers is how many workers share the job."""

    output: Output | None = None
    """output is where the trained weights go. When it is absent, they stay in the first
    worker's pod, and go with it."""

    compression: Compression | None = None
    """compression is what is done to the model after it is trained: pruning, quantization,
    distillation. It cannot be changed after the job is created."""

    tasks: Tasks | None = None
    """tasks makes the workers a pool that trains many tasks, one after the other and side by side.
    When it is absent, the job trains one. It cannot be changed after the job is created."""

    checkpoint: Checkpoint | None = None
    """checkpoint is where and how often the state of the training is kept. When it is absent,
    the training survives for as long as one of its workers does. A change takes effect for
    workers that start after it, so suspend the job before it."""

    suspend: bool = False
    """suspend stops the job when it is true: the workers finish their step, write a checkpoint
    where spec.checkpoint is given, and are removed. When it is false again, the job goes on from
    its newest checkpoint."""

    managed_by: Manager = None
    """managedBy names the controller that takes care of the job, as a name with a domain. The
    operator leaves a job alone unless this is absent or `shardwise.dev/operator`. It cannot be
    changed."""

    startup_deadline_seconds: Seconds = None
    """startupDeadlineSeconds is how long the job may take until its workers train; time in which
    it was suspended does not count. When it is absent, the job waits for as long as it takes."""

    active_deadline_seconds: Seconds = None
    """activeDeadlineSeconds is how long the job may train. Only time in which its workers train
    counts, not that of waiting or suspension. When it is absent, there is no limit."""

    stall_timeout_seconds: StallSeconds = None
    """stallTimeoutSeconds is how long a training may go without a step. After that all its
    workers are restarted, which counts against restartPolicy. When it is absent, there is no
    limit."""

    ttl_seconds_after_finished: SecondsOrNone = None
    """ttlSecondsAfterFinished is how long the job is kept after it has ended; then it is deleted,
    with its pods. When it is absent, it is kept."""

    restart_policy: RestartPolicy = Field(
        default_factory=RestartPolicy, json_schema_extra={"default": {}}
    )
    """restartPolicy is how many failures of workers the job puts up with."""

    clean_pod_policy: CleanPodPolicy = "Running"
    """cleanPodPolicy says which pods are deleted when the job has ended: `None`, those that are
    still `Running`, or `All`. The logs of a pod go with it."""

    template: Template | None = None
    """template changes the worker pods: labels, annotations, and any part of their spec."""


def trainer_json(
    trainer: Trainer, compression: Compression | None = None, tasks: Tasks | None = None
) -> dict[str, Any]:
    """What must not change once a job has begun: `spec.trainer` with its defaults, and beside its
    fields `compression` and `tasks`, spec.compression and spec.tasks with theirs, where the job
    has them."""
    found = trainer.to_json()
    if compression is not None:
        found[COMPRESSION] = compression.to_json()
    if tasks is not None:
        found[TASKS] = tasks.to_json()
    return found


def split_trainer(
    found: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]:
    """spec.trainer, spec.compression and spec.tasks of what `trainer_json` gave."""
    trainer = {key: value for key, value in found.items() if key not in (COMPRESSION, TASKS)}
    return trainer, found.get(COMPRESSION), found.get(TASKS)


def trainer_sha256(
    trainer: Trainer, compression: Compression | None = None, tasks: Tasks | None = None
) -> str:
    """Names what is trained and what is done to it then: equal for equal trainers, compressions
    and tasks, whatever the order or the defaults left out. `status.specSha256` keeps it, so that
    a change shows on clusters without CEL."""
    found = trainer_json(trainer, compression, tasks)
    text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
