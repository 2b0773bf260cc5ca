"""The parts of `status` that tell of a job's many tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from shardwise.api.base import Count32, Count64, Name, Sha256, StatusModel, Word, map_by
from shardwise.api.status_result import Metric

TaskState = Literal["Pending", "Running", "Succeeded", "Failed", "Stopped"]
MAX_ROW_PARAMETERS = 16
MAX_ROW_METRICS = 8
MAX_PARETO_ROWS = 32
MAX_TASK_ROWS = 20
ENDED_TASK_ROWS = 5
"""Of these, those for tasks that have ended, whatever the number of those under way."""
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
        Field(max_length=MAX_ROW_PARAMETERS, json_schema_extra=map_by("name")),
        _first(MAX_ROW_PARAMETERS),
    ] = None
    """parameters are the task's own values; the first 16."""

    metrics: Annotated[
        tuple[Metric, ...] | None,
        Field(max_length=MAX_ROW_METRICS, json_schema_extra=map_by("name")),
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
        Field(max_length=MAX_PARETO_ROWS, json_schema_extra=map_by("name")),
        _first(MAX_PARETO_ROWS),
    ] = None
    """pareto are tasks that no other is better than in every objective, where there are several;
    the first 32."""

    items: Annotated[
        tuple[TaskRow, ...] | None,
        Field(max_length=MAX_TASK_ROWS, json_schema_extra=map_by("name")),
        _first(MAX_TASK_ROWS),
    ] = None
    """items are the tasks under way, then those that failed last, then those that ended last; at
    most 20, with 5 of them for tasks that have ended."""

    record: Annotated[str | None, Field(max_length=MAX_RECORD)] = None
    """record is what a new coordinator goes on from: the results of all tasks, packed."""
