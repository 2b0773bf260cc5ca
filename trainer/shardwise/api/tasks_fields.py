"""Fields of the spec that a sweep sets: whether they are there.

Pure. Whether they take the values is `tasks_values`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from shardwise.api.errors import FieldError
from shardwise.api.explain import children
from shardwise.api.tasks import SweepParameter
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
