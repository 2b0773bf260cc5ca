"""Rules across fields of an OptimizationJob: one table, two languages.

Each rule is a CEL expression, which the CRD carries for API servers that have CEL, and a Python
predicate, which `validation` runs everywhere else. A test holds the two to the same answers.
Bounds of a single field are not here; they are in the field's type.
"""

from __future__ import annotations

import re
from typing import Final

from shardwise.api.compression_rules import COMPRESSION_RULES
from shardwise.api.conditions import NAME_TOO_LONG
from shardwise.api.policy import Checkpoint
from shardwise.api.rule import Immutable, Rule, where
from shardwise.api.rules_tasks import TASK_RULES
from shardwise.api.spec import MAX_PODS
from shardwise.api.types import MAX_NAME_LENGTH, OptimizationJob

NAME_PATTERN: Final = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""The job's name is also its headless Service's, and those must start with a letter."""


def _most_workers(job: OptimizationJob) -> int:
    """`max`, or 0 where it is absent: then `replicas` is the bound, which has its own rule."""
    return job.spec.workers.max or 0


def _checkpoint(job: OptimizationJob) -> Checkpoint | None:
    return job.spec.checkpoint


def _one_of(first: str, second: str, only: str) -> tuple[Rule, Rule]:
    """spec.checkpoint has one of two fields; `only` is the remedy where it has neither."""
    field = f"spec.checkpoint.{first}"
    names = [re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name) for name in (first, second)]

    def given(job: OptimizationJob) -> int:
        """How many of the two are given; 1, as it should be, where there is no checkpoint."""
        checkpoint = _checkpoint(job)
        if checkpoint is None:
            return 1
        return sum(getattr(checkpoint, name) is not None for name in names)

    def value(job: OptimizationJob) -> object:
        return getattr(_checkpoint(job), names[0], None)

    return (
        Rule(
            at="spec.checkpoint",
            field=field,
            expression=f"has(self.{first}) || has(self.{second})",
            message=f"spec.checkpoint must have either {first} or {second}",
            remedy=only,
            holds=lambda job: given(job) > 0,
            value=value,
            problem=lambda job: f"is missing, and so is spec.checkpoint.{second}",
        ),
        Rule(
            at="spec.checkpoint",
            field=field,
            expression=f"!(has(self.{first}) && has(self.{second}))",
            message=f"spec.checkpoint must not have both {first} and {second}",
            remedy=f"remove spec.checkpoint.{first} or spec.checkpoint.{second}",
            holds=lambda job: given(job) < 2,
            value=value,
            problem=lambda job: f"is given beside spec.checkpoint.{second}",
        ),
    )


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        at="",
        field="metadata.name",
        expression=where(f"size(self.metadata.name) <= {MAX_NAME_LENGTH}", "self.metadata.name"),
        message=f"metadata.name must have at most {MAX_NAME_LENGTH} characters",
        remedy="choose a shorter name: the workers' names are made from it",
        holds=lambda job: len(job.metadata.name) <= MAX_NAME_LENGTH,
        value=lambda job: job.metadata.name,
        problem=lambda job: (
            f"{job.metadata.name!r} has {len(job.metadata.name)} characters,"
            f" more than {MAX_NAME_LENGTH}"
        ),
        reason=NAME_TOO_LONG,
    ),
    Rule(
        at="",
        field="metadata.name",
        expression=where(f"self.metadata.name.matches('{NAME_PATTERN}')", "self.metadata.name"),
        message="metadata.name must be a lowercase letter, then letters, digits and dashes",
        remedy="rename the job: a Service gets the same name",
        holds=lambda job: re.fullmatch(NAME_PATTERN, job.metadata.name) is not None,
        value=lambda job: job.metadata.name,
        problem=lambda job: (
            f"{job.metadata.name!r} is not a lowercase letter followed by"
            " lowercase letters, digits and dashes"
        ),
    ),
    Rule(
        at="spec",
        field="spec.workers.replicas",
        # A pool may have more workers than one task can use.
        expression="has(self.tasks) || "
        + where(
            "self.workers.replicas <= self.trainer.shards", "self.workers", "self.workers.replicas"
        ),
        message="spec.workers.replicas must not be more than spec.trainer.shards",
        remedy="lower replicas or raise shards",
        holds=lambda job: (
            job.spec.tasks is not None or job.spec.workers.replicas <= job.spec.trainer.shards
        ),
        value=lambda job: job.spec.workers.replicas,
        problem=lambda job: (
            f"{job.spec.workers.replicas} is more than"
            f" spec.trainer.shards ({job.spec.trainer.shards})"
        ),
    ),
    Rule(
        at="spec",
        field="spec.workers.max",
        expression="has(self.tasks) || "
        + where("self.workers.max <= self.trainer.shards", "self.workers", "self.workers.max"),
        message="spec.workers.max must not be more than spec.trainer.shards",
        remedy="lower max or raise shards",
        holds=lambda job: (
            job.spec.tasks is not None or _most_workers(job) <= job.spec.trainer.shards
        ),
        value=lambda job: job.spec.workers.max,
        problem=lambda job: (
            f"{job.spec.workers.max} is more than spec.trainer.shards ({job.spec.trainer.shards})"
        ),
    ),
    Rule(
        at="spec.workers",
        field="spec.workers.min",
        expression=where("self.min <= self.replicas", "self.min", "self.replicas"),
        message="spec.workers.min must not be more than spec.workers.replicas",
        remedy="lower min or raise replicas",
        holds=lambda job: job.spec.workers.min <= job.spec.workers.replicas,
        value=lambda job: job.spec.workers.min,
        problem=lambda job: (
            f"{job.spec.workers.min} is more than"
            f" spec.workers.replicas ({job.spec.workers.replicas})"
        ),
    ),
    Rule(
        at="spec.workers",
        field="spec.workers.replicas",
        expression=where("self.replicas <= self.max", "self.replicas", "self.max"),
        message="spec.workers.replicas must not be more than spec.workers.max",
        remedy="lower replicas or raise max",
        holds=lambda job: job.spec.workers.replicas <= job.spec.workers.most,
        value=lambda job: job.spec.workers.replicas,
        problem=lambda job: (
            f"{job.spec.workers.replicas} is more than spec.workers.max ({job.spec.workers.max})"
        ),
    ),
    Rule(
        at="spec.workers",
        field="spec.workers.standby",
        expression=where(
            f"self.replicas + self.standby <= {MAX_PODS}", "self.replicas", "self.standby"
        ),
        message=f"spec.workers.replicas and spec.workers.standby must be at most {MAX_PODS} pods",
        remedy="lower standby",
        holds=lambda job: job.spec.workers.replicas + job.spec.workers.standby <= MAX_PODS,
        value=lambda job: job.spec.workers.standby,
        problem=lambda job: (
            f"{job.spec.workers.standby} and spec.workers.replicas"
            f" ({job.spec.workers.replicas}) are more than {MAX_PODS} pods"
        ),
    ),
    *_one_of(
        "everySteps",
        "everySeconds",
        "say how often: add everySteps or everySeconds, for example everySeconds: 300",
    ),
    *_one_of(
        "volume",
        "url",
        "say where: add volume or url, for example"
        " volume: {persistentVolumeClaim: {claimName: checkpoints}}",
    ),
    Rule(
        at="spec.trainer",
        field="spec.trainer.shards",
        expression="self.shards <= self.batchSize",
        message="spec.trainer.shards must not be more than spec.trainer.batchSize",
        remedy="lower shards or raise batchSize, so that every shard has a sample",
        holds=lambda job: job.spec.trainer.shards <= job.spec.trainer.batch_size,
        value=lambda job: job.spec.trainer.shards,
        problem=lambda job: (
            f"{job.spec.trainer.shards} is more than"
            f" spec.trainer.batchSize ({job.spec.trainer.batch_size})"
        ),
    ),
    Rule(
        at="spec.trainer",
        field="spec.trainer.epochs",
        expression="has(self.epochs) || has(self.steps)",
        message="spec.trainer must have either epochs or steps",
        remedy="add spec.trainer.epochs or spec.trainer.steps",
        holds=lambda job: job.spec.trainer.epochs is not None or job.spec.trainer.steps is not None,
        value=lambda job: job.spec.trainer.epochs,
        problem=lambda job: "is missing, and so is spec.trainer.steps",
    ),
    Rule(
        at="spec.trainer",
        field="spec.trainer.epochs",
        expression="!(has(self.epochs) && has(self.steps))",
        message="spec.trainer must not have both epochs and steps",
        remedy="remove spec.trainer.epochs or spec.trainer.steps",
        holds=lambda job: job.spec.trainer.epochs is None or job.spec.trainer.steps is None,
        value=lambda job: job.spec.trainer.epochs,
        problem=lambda job: (
            f"{job.spec.trainer.epochs} is given beside"
            f" spec.trainer.steps ({job.spec.trainer.steps})"
        ),
    ),
    *COMPRESSION_RULES,
    *TASK_RULES,
)

TRAINER_IMMUTABLE: Final = Immutable(
    at="spec.trainer",
    message="spec.trainer cannot be changed: the result follows from it",
    remedy="create a new job with another name",
    same=lambda new, old: new.trainer == old.trainer,
)

TASKS_IMMUTABLE: Final = Immutable(
    at="spec",
    message="spec.tasks cannot be changed: the result follows from it",
    remedy="create a new job with another name",
    same=lambda new, old: new.tasks == old.tasks,
    expression="has(self.tasks) == has(oldSelf.tasks)"
    " && (!has(self.tasks) || self.tasks == oldSelf.tasks)",
)

MANAGER_IMMUTABLE: Final = Immutable(
    at="spec",
    message="spec.managedBy cannot be changed: another controller may have begun the job",
    remedy="create a new job with another name",
    same=lambda new, old: new.managed_by == old.managed_by,
    expression="has(self.managedBy) == has(oldSelf.managedBy)"
    " && (!has(self.managedBy) || self.managedBy == oldSelf.managedBy)",
)

COMPRESSION_IMMUTABLE: Final = Immutable(
    at="spec",
    message="spec.compression cannot be changed: the result follows from it",
    remedy="create a new job with another name",
    same=lambda new, old: new.compression == old.compression,
    expression="has(self.compression) == has(oldSelf.compression)"
    " && (!has(self.compression) || self.compression == oldSelf.compression)",
)

__all__ = ["CEL_RULES", "NAME_PATTERN", "RULES", "Immutable", "Rule"]

CEL_RULES: Final[tuple[Rule | Immutable, ...]] = (
    *RULES,
    TRAINER_IMMUTABLE,
    COMPRESSION_IMMUTABLE,
    TASKS_IMMUTABLE,
    MANAGER_IMMUTABLE,
)
"""What the CRD carries."""
