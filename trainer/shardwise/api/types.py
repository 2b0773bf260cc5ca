"""The OptimizationJob: names of the resource, and the object as a whole.

The place to import API types from. Reading one from a manifest is `validation.validate`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from shardwise.api.base import Model, SpecModel, Time
from shardwise.api.compression import Artifact, Compression, CompressionRow, CompressionStatus
from shardwise.api.parameters import ParameterValue
from shardwise.api.policy import Checkpoint, RestartPolicy
from shardwise.api.spec import (
    CodeSource,
    OptimizationJobSpec,
    Output,
    Template,
    TemplateMetadata,
    Trainer,
    Workers,
    split_trainer,
    trainer_json,
    trainer_sha256,
)
from shardwise.api.status import (
    CheckpointStatus,
    CodeStatus,
    Condition,
    GoodputPart,
    OptimizationJobStatus,
    Progress,
    State,
    WorkersStatus,
)
from shardwise.api.status_failures import (
    CauseCount,
    LastFailure,
    LastRecovery,
    Restart,
    RestartsStatus,
)
from shardwise.api.status_result import Metric, Result
from shardwise.api.status_tasks import BestTask, TaskParameter, TaskRow, TasksStatus, TaskState
from shardwise.api.tasks import (
    EarlyStopping,
    Objective,
    Range,
    Sweep,
    SweepParameter,
    TaskItem,
    Tasks,
    When,
)

GROUP: Final = "shardwise.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "shardwise.dev/v1alpha1"
KIND: Final = "OptimizationJob"
PLURAL: Final = "optimizationjobs"
SINGULAR: Final = "optimizationjob"
SHORT_NAME: Final = "optjob"
MANAGER: Final = "shardwise.dev/operator"
"""The value of spec.managedBy that means the same as its absence."""
MAX_NAME_LENGTH: Final = 52
"""Pods add `-<index>` and a hash may follow; host names and labels end at 63 characters."""


class ObjectMeta(Model):
    """What we read of an object's metadata; the rest is the API server's and is passed over."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, StringConstraints(min_length=1, max_length=253, strict=True)]
    """name is the job's name in its namespace."""
    namespace: str = "default"
    """namespace is where the job and its workers are."""
    uid: str = ""
    """uid is what the API server calls this very object; empty for a file."""
    generation: int = 0
    """generation counts the changes of the spec; 0 for a file."""
    creation_timestamp: Time | None = None
    """creationTimestamp is when the API server got the object."""
    deletion_timestamp: Time | None = None
    """deletionTimestamp is when its deletion was asked for."""
    labels: dict[str, str] = Field(default_factory=dict)
    """labels are the object's labels."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """annotations are the object's annotations."""


class OptimizationJob(SpecModel):
    """An OptimizationJob trains one model on many workers by summing the gradients of fixed
    shards of every batch. The trained weights follow from spec.trainer and the data alone; the
    number of workers changes only how long it takes."""

    api_version: Literal["shardwise.dev/v1alpha1"]
    """apiVersion is shardwise.dev/v1alpha1."""
    kind: Literal["OptimizationJob"]
    """kind is OptimizationJob."""
    metadata: ObjectMeta
    """metadata is the standard object metadata."""
    spec: OptimizationJobSpec
    """spec is what the user asks for."""
    status: OptimizationJobStatus | None = None
    """status is what the operator tells about the job. It is written by the operator alone."""

    @property
    def key(self) -> str:
        """namespace/name"""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    def trainer_json(self) -> dict[str, Any]:
        """All that the result follows from, as the operator keeps it; `split_trainer` parts it."""
        return trainer_json(self.spec.trainer, self.spec.compression, self.spec.tasks)


__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "MANAGER",
    "MAX_NAME_LENGTH",
    "PLURAL",
    "SHORT_NAME",
    "SINGULAR",
    "VERSION",
    "Artifact",
    "BestTask",
    "CauseCount",
    "Checkpoint",
    "CheckpointStatus",
    "CodeSource",
    "CodeStatus",
    "Compression",
    "CompressionRow",
    "CompressionStatus",
    "Condition",
    "EarlyStopping",
    "GoodputPart",
    "LastFailure",
    "LastRecovery",
    "Metric",
    "ObjectMeta",
    "Objective",
    "OptimizationJob",
    "OptimizationJobSpec",
    "OptimizationJobStatus",
    "Output",
    "ParameterValue",
    "Progress",
    "Range",
    "Restart",
    "RestartPolicy",
    "RestartsStatus",
    "Result",
    "State",
    "Sweep",
    "SweepParameter",
    "TaskItem",
    "TaskParameter",
    "TaskRow",
    "TaskState",
    "Tasks",
    "TasksStatus",
    "Template",
    "TemplateMetadata",
    "Trainer",
    "When",
    "Workers",
    "WorkersStatus",
    "split_trainer",
    "trainer_sha256",
]
