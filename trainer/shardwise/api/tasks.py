"""`spec.tasks` of an OptimizationJob: many trainings on one pool of workers.

Imported by `spec`. Holds no rule across fields: those are in `rules`, and what CEL cannot say in
`tasks_check`. What one task trains is `tasks_concrete`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError, PydanticKnownError

from shardwise.api.base import ATOMIC, INT32, INT64, SAFE_INTEGER, SpecModel
from shardwise.api.compression import BY_NAME, Compression
from shardwise.api.parameters import ParameterName, ParameterValue, parameter_value

TASK_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
FIELD_PATTERN: Final = (
    r"^(trainer\.(epochs|steps|batchSize|seed)"
    r"|compression\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z][A-Za-z0-9]*){2,8})$"
)
NUMBER_PATTERN: Final = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"

MAX_TASKS: Final = 10_000
MAX_VALUES: Final = 20_000
"""Of all objectives of all tasks: the status holds them, with 18 bits each at least."""
MAX_LISTED: Final = 1000
"""Listed tasks stand in the object itself, which has a bound of its own; a sweep is a rule."""
MAX_SWEPT: Final = 16
MAX_CHOICES: Final = 256
MAX_OBJECTIVES: Final = 4
MAX_RUNGS: Final = 16
MAX_GROUP: Final = 1024
MAX_NUMBER_LENGTH: Final = 32
AUTO: Final = "Auto"
COMPRESSION_METRICS: Final = ("bytes", "parameters", "nonzeros", "macs", "latencyMilliseconds")
"""Figures of the compression's last row that an objective can name, beside the evaluation's."""


def _tuple(value: Any) -> Any:
    """A manifest has lists; a frozen type has tuples."""
    return tuple(value) if isinstance(value, list) else value


def _some(value: Any) -> Any:
    # The type's own bound counts valid entries only, and would tell of a bad one twice.
    if isinstance(value, list) and not value:
        raise PydanticKnownError(
            "too_short", {"field_type": "List", "min_length": 1, "actual_length": 0}
        )
    return _tuple(value)


def _number(value: Any) -> Any:
    value = parameter_value(value)
    long = isinstance(value, str) and len(value) > MAX_NUMBER_LENGTH
    if long or re.fullmatch(NUMBER_PATTERN, str(value)) is None:
        raise PydanticCustomError("parameter_number", "is no number")
    return value


def _group(value: Any) -> Any:
    if value == AUTO or (type(value) is int and 1 <= value <= MAX_GROUP):
        return value
    raise PydanticCustomError("group", "is neither Auto nor a number of workers")


FromList = BeforeValidator(_tuple)
SomeFromList = BeforeValidator(_some)
SOME: Final = {"minItems": 1}
Number = Annotated[
    int | str,
    BeforeValidator(_number),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": MAX_NUMBER_LENGTH,
            "pattern": NUMBER_PATTERN,
            "minimum": -SAFE_INTEGER,
            "maximum": SAFE_INTEGER,
        }
    ),
]
Group = Annotated[
    int | Literal["Auto"],
    BeforeValidator(_group),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": len(AUTO),
            "pattern": f"^{AUTO}$",
            "minimum": 1,
            "maximum": MAX_GROUP,
        }
    ),
]
Choices = Annotated[
    tuple[ParameterValue, ...],
    Field(max_length=MAX_CHOICES, json_schema_extra=ATOMIC | SOME),
    SomeFromList,
]


class TaskItem(SpecModel):
    """One task of a list."""

    name: Annotated[str, StringConstraints(max_length=63, pattern=TASK_NAME_PATTERN)]
    """name is what the task is called in the status and in the output, where it has a folder."""

    parameters: Annotated[dict[ParameterName, ParameterValue], Field(max_length=64)] = Field(
        default_factory=dict, json_schema_extra={"default": {}}
    )
    """parameters are arguments of the entrypoint, by name, laid over spec.trainer.parameters."""

    compression: Compression | None = None
    """compression is what is done to this task's model. When it is absent, it is
    spec.compression."""


class Range(SpecModel):
    """Numbers between two bounds, both included."""

    type: Literal["Float", "Int"]
    """type is what numbers these are: fractions (`Float`) or integers (`Int`)."""

    min: Number
    """min is the least, as an integer or a decimal number in quotes."""

    max: Number
    """max is the greatest, as an integer or a decimal number in quotes."""

    scale: Literal["Linear", "Log"] = "Linear"
    """scale is how the numbers lie between the bounds: at equal distances (`Linear`) or at equal
    ratios (`Log`)."""

    points: Annotated[int | None, Field(ge=2, le=MAX_TASKS, json_schema_extra=INT32)] = None
    """points is how many of them a Grid tries, the bounds among them. When it is absent, a Grid
    tries every integer of an Int range; a Float range needs it."""


class When(SpecModel):
    """A condition on another parameter."""

    parameter: ParameterName
    """parameter is the name of an earlier parameter, which has values."""

    values: Choices
    """values are those of its values with which the condition holds."""


class SweepParameter(SpecModel):
    """What differs between the tasks of a sweep: exactly one of values and range."""

    name: ParameterName
    """name is what the parameter is called in the status; where there is no field, it is the
    entrypoint's argument of that name."""

    field: Annotated[str | None, StringConstraints(max_length=253, pattern=FIELD_PATTERN)] = None
    """field is the part of the spec that the parameter sets: `trainer.` and one of epochs, steps,
    batchSize and seed, or `compression.`, a step's name and the path below it; for example
    `compression.int8.quantize.bits`. When it is absent, the parameter is an argument of the
    entrypoint."""

    values: Choices | None = None
    """values are those to choose from."""

    range: Range | None = None
    """range is the numbers to choose from."""

    when: When | None = None
    """when is the condition under which a task has the parameter. Where it does not hold, the
    parameter is left out. When it is absent, every task has it."""


class EarlyStopping(SpecModel):
    """ASHA (Li and others 2020): tasks are trained up to a rung, and only the best of those that
    came there go on to the next."""

    rungs: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1_000_000_000, json_schema_extra=INT64)], ...],
        Field(max_length=MAX_RUNGS, json_schema_extra=ATOMIC | SOME),
        SomeFromList,
    ]
    """rungs are the epochs, or the steps where the trainer has steps, at which tasks are compared,
    in increasing order."""

    reduction_factor: Annotated[int, Field(ge=2, le=1000, json_schema_extra=INT32)] = 3
    """reductionFactor is how many tasks come to a rung for each one that goes on."""


class Sweep(SpecModel):
    """Tasks made by a rule."""

    parameters: Annotated[
        tuple[SweepParameter, ...],
        Field(max_length=MAX_SWEPT, json_schema_extra=BY_NAME | SOME),
        SomeFromList,
    ]
    """parameters are what differs between the tasks."""

    algorithm: Literal["Grid", "Random", "TPE", "NSGA2"] = "Grid"
    """algorithm chooses the tasks: all combinations (`Grid`); at `Random`; by what the results
    so far say about good values of one objective (`TPE`) or of several (`NSGA2`)."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1, json_schema_extra=INT64)] = 0
    """seed is what the choices of Random, TPE and NSGA2 follow from."""

    early_stopping: EarlyStopping | None = None
    """earlyStopping ends tasks that are worse than others. When it is absent, every task is
    trained to its end."""


class Objective(SpecModel):
    """A figure by which tasks are compared."""

    metric: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """metric is one of the evaluation's figures, for example accuracy, or of the last row of the
    compression's table: bytes, parameters, nonzeros, macs or latencyMilliseconds."""

    direction: Literal["Maximize", "Minimize"]
    """direction says whether more of it is better (`Maximize`) or less (`Minimize`)."""


class Tasks(SpecModel):
    """Many trainings on one pool of workers, either listed or made by a sweep. Each is summed over
    a group of the workers, and its result is that of a job of its own, whoever computes it."""

    list: Annotated[
        tuple[TaskItem, ...] | None,
        Field(max_length=MAX_LISTED, json_schema_extra=BY_NAME | SOME),
        SomeFromList,
    ] = None
    """list names the tasks one by one. Give either list or sweep, not both."""

    sweep: Sweep | None = None
    """sweep makes the tasks by a rule. Give either list or sweep, not both."""

    objectives: Annotated[
        tuple[Objective, ...],
        Field(
            max_length=MAX_OBJECTIVES,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["metric"],
                "default": [],
            },
        ),
        FromList,
    ] = ()
    """objectives are the figures by which tasks are compared, the most important first. TPE and
    earlyStopping need exactly one, NSGA2 at least one."""

    max_tasks: Annotated[int | None, Field(ge=1, le=MAX_TASKS, json_schema_extra=INT32)] = None
    """maxTasks is how many tasks Random, TPE and NSGA2 try, which need it. For a list or a Grid,
    it is the most that there may be, 10000 when it is absent. With more than two objectives,
    there are at most 20000 divided by their number."""

    parallelism: Annotated[int | None, Field(ge=1, le=MAX_GROUP, json_schema_extra=INT32)] = None
    """parallelism is how many tasks are under way at once. For TPE, NSGA2 and earlyStopping it is
    also how many results a choice does not wait for, so the choices follow from it; 4 when it is
    absent. For others it is as many as the pool has room for when it is absent."""

    max_failed_tasks: Annotated[int | None, Field(ge=0, le=MAX_TASKS, json_schema_extra=INT32)] = (
        None
    )
    """maxFailedTasks is how many tasks may fail; with one more, the job has failed. When it is
    absent, the job fails only where no task succeeds."""

    max_retries: Annotated[int, Field(ge=0, le=100, json_schema_extra=INT32)] = 2
    """maxRetries is how often a task is begun anew after its worker ran out of memory or died. An
    error of the user's code is not retried."""

    workers_per_task: Group = AUTO
    """workersPerTask is the number of workers that compute one task together. With `Auto` it is 1
    while tasks wait, and more for the last ones, so that no worker is idle. A number is at most
    spec.trainer.shards, and at most what the pool may have (spec.workers.max, or replicas)."""
