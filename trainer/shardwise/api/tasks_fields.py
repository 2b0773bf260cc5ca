"""Fields of the spec that a sweep sets: whether they are there, and whether they take the values.

Pure. What a task's spec would be is `tasks_concrete`'s word; what is accepted there is that of the
API's own types and rules.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shardwise.api.compression import Compression
from shardwise.api.errors import FieldError
from shardwise.api.explain import children, explain, path
from shardwise.api.rules import RULES
from shardwise.api.spec import Trainer, Workers
from shardwise.api.tasks import SweepParameter
from shardwise.api.tasks_concrete import concrete
from shardwise.api.types import OptimizationJob

SWEPT = "spec.tasks.sweep.parameters"


def named(wrong: str, known: Sequence[str], verb: str) -> str:
    """A remedy for a name that is not there: the one that is near, or all."""
    near = difflib.get_close_matches(wrong, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"{verb} one of {', '.join(map(repr, known[:16]))}" if known else "remove it"


def field_errors(at: str, parameter: SweepParameter, job: OptimizationJob) -> Iterator[FieldError]:
    """What is wrong with a parameter's `field`; `at` is where it stands."""
    field = parameter.field
    if field is None:
        return
    found = _trainer_field(field, parameter, job)
    if field.startswith("compression."):
        found = _compression_field(field, job)
    if found is not None:
        yield FieldError(at, field, *found)


def _trainer_field(
    field: str, parameter: SweepParameter, job: OptimizationJob
) -> tuple[str, str] | None:
    trainer, name = job.spec.trainer, field.partition(".")[2]
    other = {"epochs": "steps", "steps": "epochs"}.get(name)
    if other is not None and getattr(trainer, name) is None and getattr(trainer, other) is not None:
        return (
            f"{field!r} is given, and the trainer counts {other} (spec.trainer.{other})",
            f"write trainer.{other}, or spec.trainer.{name} instead of {other}",
        )
    if parameter.range is not None and parameter.range.type == "Float":
        return f"{field!r} is an integer, and the range's type is Float", "write type: Int"
    return None


def _compression_field(field: str, job: OptimizationJob) -> tuple[str, str] | None:
    _, name, *parents, last = field.split(".")
    if job.spec.compression is None:
        return f"{field!r} is a part of spec.compression, which is absent", "add spec.compression"
    steps = {step.name: step for step in job.spec.compression.steps}
    if name not in steps:
        return f"{name!r} is no step of spec.compression", named(name, list(steps), "write")
    node: BaseModel = steps[name]
    at = f"the step {name!r}"
    for part in parents:
        if part not in children(type(node)):
            return _unknown(part, node, at)
        found = _get(node, part)
        if found is None:
            given = [key for key in children(type(node)) if isinstance(_get(node, key), BaseModel)]
            return f"{at} has no {part}", named(part, given, "write")
        if not isinstance(found, BaseModel):
            return f"{part!r} of {at} has no fields", f"end the path with {part}"
        node, at = found, f"{part} of {at}"
    return None if last in children(type(node)) else _unknown(last, node, at)


def _unknown(part: str, node: BaseModel, at: str) -> tuple[str, str]:
    return f"{part!r} is no field of {at}", named(part, list(children(type(node))), "write")


def _get(node: BaseModel, alias: str) -> Any:
    """The field of a model by its name in JSON."""
    for name, info in type(node).model_fields.items():
        if info.alias == alias:
            return getattr(node, name)
    raise KeyError(alias)


def item_errors(job: OptimizationJob) -> Iterator[FieldError]:
    """Items of a list whose spec would not be accepted as that of a job of its own."""
    tasks = job.spec.tasks
    if tasks is None or tasks.list is None or tasks.sweep or _broken(job, *_parts(job)):
        return
    for index, item in enumerate(tasks.list):
        for field, value, problem, remedy in _wrong(job, item.to_json()):
            yield FieldError(
                f"spec.tasks.list[{index}]", value, f"makes {field} invalid: {problem}", remedy
            )


def value_errors(job: OptimizationJob) -> Iterator[FieldError]:
    """Values of a sweep, and ends of its ranges, that the field they set does not take. Each is
    tried alone: no rule of the spec is about two fields that a sweep can set."""
    tasks = job.spec.tasks
    if tasks is None or tasks.sweep is None or tasks.list or _broken(job, *_parts(job)):
        return
    for index, parameter in enumerate(tasks.sweep.parameters):
        if parameter.field is None:
            continue
        for where, value in _tried(parameter):
            wrong = _wrong(job, {parameter.name: value})
            for field, _, problem, remedy in wrong:
                if where.startswith("range") and "not an integer" in problem:
                    # The value is ours, written as a fraction: another spelling does not help.
                    remedy = "write type: Int"
                yield FieldError(
                    f"{SWEPT}[{index}].{where}",
                    value,
                    f"{value!r} makes {field} invalid: {problem}",
                    remedy,
                )
            if wrong and where == "range.min":
                break  # Mostly the same is wrong with the other end.


def _tried(parameter: SweepParameter) -> Iterator[tuple[str, int | str]]:
    for index, value in enumerate(parameter.values or ()):
        yield f"values[{index}]", value
    if parameter.range is not None:
        kind = int if parameter.range.type == "Int" else str
        yield "range.min", kind(parameter.range.min)
        yield "range.max", kind(parameter.range.max)


Wrong = tuple[str, object, str, str]
"""Field, value, problem, remedy."""


def _wrong(job: OptimizationJob, assigned: Mapping[str, Any]) -> list[Wrong]:
    """What would be wrong with the spec of the task that has these values."""
    assert job.spec.tasks is not None
    trainer, compression = concrete(*_parts(job), job.spec.tasks.to_json(), assigned)
    return _broken(job, trainer, compression)


def _parts(job: OptimizationJob) -> tuple[dict[str, Any], dict[str, Any] | None]:
    compression = job.spec.compression
    return job.spec.trainer.to_json(), None if compression is None else compression.to_json()


def _broken(
    job: OptimizationJob, trainer: dict[str, Any], compression: dict[str, Any] | None
) -> list[Wrong]:
    try:
        at = "trainer"
        checked = Trainer.model_validate(trainer)
        at = "compression"
        steps = None if compression is None else Compression.model_validate(compression)
    except ValidationError as error:
        return [_explained(at, found) for found in error.errors(include_url=False)]
    parts = {"trainer": checked, "compression": steps, "tasks": None, "workers": Workers()}
    alone = job.model_copy(update={"spec": job.spec.model_copy(update=parts)})
    return [
        (rule.field, rule.value(alone), rule.problem(alone), rule.remedy)
        for rule in RULES
        if rule.at.startswith("spec.trainer") and not rule.holds(alone)
    ]


def _explained(part: str, found: ErrorDetails) -> Wrong:
    whole = found | {"loc": ("spec", part, *found["loc"])}
    return path(whole["loc"]), found["input"], *explain(whole)
