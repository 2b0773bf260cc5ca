"""What must hold of spec.tasks and CEL cannot say.

Called by `validation`. Pure. Each error names the field, the value and the remedy. The values of a
sweep are tried on the spec (`tasks_values`), so that no task is refused only when its turn comes.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence

from shardwise.api.errors import FieldError
from shardwise.api.tasks import (
    COMPRESSION_METRICS,
    MAX_TASKS,
    MAX_VALUES,
    EarlyStopping,
    Sweep,
    SweepParameter,
    Tasks,
)
from shardwise.api.tasks_fields import field_errors, named
from shardwise.api.tasks_ranges import grid_size, range_errors
from shardwise.api.tasks_values import item_errors, value_errors
from shardwise.api.types import OptimizationJob

MAX_BYTES = 131_072
"""Of spec.tasks as JSON: every worker pod carries it in an annotation, and annotations have a
bound of twice that."""

SWEEP = "spec.tasks.sweep"


def sweep_errors(job: OptimizationJob) -> list[FieldError]:
    """All that is wrong with spec.tasks beside the rules of `rules`; empty where there is none."""
    tasks = job.spec.tasks
    if tasks is None:
        return []
    errors = [*_size(tasks), *_objectives(job, tasks)]
    if tasks.list is not None:
        names = [item.name for item in tasks.list]
        errors += _duplicates("spec.tasks.list", "name", names, "give each task its own name")
    if tasks.sweep is not None:
        errors += _sweep(job, tasks, tasks.sweep)
    # Only what is sound otherwise can be tried on the spec.
    return errors or [*item_errors(job), *value_errors(job)]


def _size(tasks: Tasks) -> Iterator[FieldError]:
    size = len(json.dumps(tasks.to_json(), separators=(",", ":")))
    if size > MAX_BYTES:
        yield FieldError(
            "spec.tasks",
            size,
            f"has {size} bytes as JSON, more than {MAX_BYTES}",
            "write a sweep instead of a list, or put what the tasks share into spec.trainer",
        )


def _duplicates(
    at: str, key: str, found: Sequence[Hashable | None], remedy: str
) -> Iterator[FieldError]:
    first: dict[tuple[type, Hashable], int] = {}
    for index, value in enumerate(found):
        if value is None:
            continue
        # 1 and "1" are two values of a parameter.
        earlier = first.setdefault((type(value), value), index)
        if earlier != index:
            tail = f".{key}" if key else ""
            yield FieldError(
                f"{at}[{index}]{tail}",
                value,
                f"{value!r} is that of {at}[{earlier}] too",
                remedy,
            )


def _objectives(job: OptimizationJob, tasks: Tasks) -> Iterator[FieldError]:
    at = "spec.tasks.objectives"
    metrics = [objective.metric for objective in tasks.objectives]
    yield from _duplicates(at, "metric", metrics, "remove one of them")
    stops = tasks.sweep is not None and tasks.sweep.early_stopping is not None
    listed = tasks.list or ()
    bare = next((item.name for item in listed if item.compression is None), None)
    compressed = job.spec.compression is not None or (bool(listed) and bare is None)
    for index, metric in enumerate(metrics):
        if metric not in COMPRESSION_METRICS:
            continue
        if not compressed:
            whose = "the job has" if bare is None else f"the task {bare!r} has"
            yield FieldError(
                f"{at}[{index}].metric",
                metric,
                f"{metric!r} is a figure of the compression, and {whose} none",
                "add spec.compression, or name a metric of the evaluation, for example accuracy",
            )
        elif stops:
            yield FieldError(
                f"{at}[{index}].metric",
                metric,
                f"{metric!r} is known only after the compression, and earlyStopping compares tasks"
                " in the middle of their training",
                f"name a metric of the evaluation, or remove {SWEEP}.earlyStopping",
            )


def _sweep(job: OptimizationJob, tasks: Tasks, sweep: Sweep) -> Iterator[FieldError]:
    at = f"{SWEEP}.parameters"
    names = [parameter.name for parameter in sweep.parameters]
    fields = [parameter.field for parameter in sweep.parameters]
    yield from _duplicates(at, "name", names, "give each parameter its own name")
    yield from _duplicates(at, "field", fields, "set it with one of them")
    sound = True
    for index, parameter in enumerate(sweep.parameters):
        found = [
            *_duplicates(f"{at}[{index}].values", "", parameter.values or (), "remove one of them"),
            *range_errors(f"{at}[{index}].range", parameter, sweep.algorithm),
            *_when(f"{at}[{index}].when", parameter, sweep.parameters[:index], names),
        ]
        sound = sound and not found and (parameter.values is None) != (parameter.range is None)
        yield from found
        yield from field_errors(f"{at}[{index}].field", parameter, job)
    if sound:
        yield from _number(tasks, sweep)
    if sweep.early_stopping is not None:
        yield from _early_stopping(sweep, sweep.early_stopping)


def _when(
    at: str, parameter: SweepParameter, earlier: Sequence[SweepParameter], names: Sequence[str]
) -> Iterator[FieldError]:
    when = parameter.when
    if when is None:
        return
    wanted = when.parameter
    other = next((found for found in earlier if found.name == wanted), None)
    if other is None:
        if wanted in names:
            problem = f"{wanted!r} comes after {parameter.name!r}"
            if wanted == parameter.name:
                problem = f"{wanted!r} is the parameter itself"
            remedy = "name a parameter that comes earlier in the list, or move it there"
        else:
            problem = f"{wanted!r} is no parameter of the sweep"
            remedy = named(wanted, [found.name for found in earlier if found.values], "name")
        yield FieldError(f"{at}.parameter", wanted, problem, remedy)
    elif other.values is None:
        yield FieldError(
            f"{at}.parameter",
            wanted,
            f"{wanted!r} has a range, and a condition needs values to compare with",
            f"give {wanted!r} values instead of a range",
        )
    else:
        known = {(type(value), value) for value in other.values}
        for index, value in enumerate(when.values):
            if (type(value), value) not in known:
                yield FieldError(
                    f"{at}.values[{index}]",
                    value,
                    f"{value!r} is not one of the values of {wanted!r}",
                    f"take one of {', '.join(map(repr, other.values[:8]))}",
                )


def _number(tasks: Tasks, sweep: Sweep) -> Iterator[FieldError]:
    """How many tasks there are: a grid within maxTasks, and all values within the status."""
    number = tasks.max_tasks or 0
    if sweep.algorithm == "Grid":
        number, most = grid_size(sweep), tasks.max_tasks or MAX_TASKS
        if number > most:
            given = "" if tasks.max_tasks else ", which it is when it is absent"
            more = "raise maxTasks, " if most < MAX_TASKS else ""
            yield FieldError(
                f"{SWEEP}.parameters",
                number,
                f"are a grid of {number} tasks, more than spec.tasks.maxTasks ({most}{given})",
                f"{more}give fewer values or points, or take algorithm: Random",
            )
            return
    objectives = len(tasks.objectives)
    if number * objectives > MAX_VALUES:
        yield FieldError(
            "spec.tasks.objectives",
            objectives,
            f"{number} tasks with {objectives} objectives have more than {MAX_VALUES} values,"
            " which is what the status can hold",
            f"try at most {MAX_VALUES // objectives} tasks, or remove an objective",
        )


def _early_stopping(sweep: Sweep, stopping: EarlyStopping) -> Iterator[FieldError]:
    at = f"{SWEEP}.earlyStopping"
    for index, (before, rung) in enumerate(
        zip(stopping.rungs, stopping.rungs[1:], strict=False), start=1
    ):
        if rung <= before:
            yield FieldError(
                f"{at}.rungs[{index}]",
                rung,
                f"{rung} is not more than the rung before it ({before})",
                "write the rungs in increasing order, none twice",
            )
    for index, parameter in enumerate(sweep.parameters):
        if parameter.field in ("trainer.epochs", "trainer.steps"):
            yield FieldError(
                f"{SWEEP}.parameters[{index}].field",
                parameter.field,
                f"{parameter.field!r} is given beside earlyStopping, which compares tasks of one"
                " length",
                f"remove this parameter, or {at}",
            )
