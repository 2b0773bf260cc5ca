"""Whether the spec takes the values of each task: those of a sweep, and those of a list's items.

Pure. What a task's spec is, is `tasks_concrete`'s word; what is accepted there is that of the API's
own types and rules, so that no task is refused only when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shardwise.api.compression import Compression
from shardwise.api.errors import FieldError
from shardwise.api.explain import explain, path
from shardwise.api.rules import RULES
from shardwise.api.spec import MAX_PARAMETERS, Trainer, Workers
from shardwise.api.tasks import SweepParameter
from shardwise.api.tasks_concrete import concrete
from shardwise.api.types import OptimizationJob

SWEPT = "spec.tasks.sweep.parameters"
MAX_TRIED = 2000
"""Combinations of values that are tried for one step. Where there are more, a worker tells of what
is wrong with the others."""

Wrong = tuple[str, object, str, str]
"""Field, value, problem, remedy."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """A value that a parameter may have."""

    index: int
    parameter: SweepParameter
    where: str
    value: int | str


def item_errors(job: OptimizationJob) -> Iterator[FieldError]:
    """Items of a list whose spec would not be accepted as that of a job of its own."""
    tasks, trainer = job.spec.tasks, job.spec.trainer
    if tasks is None or tasks.sweep is not None:
        return
    for index, item in enumerate(tasks.list or ()):
        at = f"spec.tasks.list[{index}]"
        yield from _number(f"{at}.parameters", job, item.parameters)
        if item.compression is not None:
            for field, value, problem, remedy in _against_rules(job, trainer, item.compression):
                if field.startswith("spec.compression"):
                    own = field.replace("spec.compression", f"{at}.compression", 1)
                    yield FieldError(own, value, problem, remedy)


def _number(at: str, job: OptimizationJob, own: Iterable[str]) -> Iterator[FieldError]:
    """A task has no more arguments than a job of its own may have."""
    number = len(job.spec.trainer.parameters.keys() | set(own))
    if number > MAX_PARAMETERS:
        yield FieldError(
            at,
            number,
            f"make {number} arguments with those of spec.trainer, more than {MAX_PARAMETERS}",
            "remove some, or put them into the code",
        )


def value_errors(job: OptimizationJob) -> Iterator[FieldError]:
    """Values of a sweep, and ends of its ranges, that the fields they set do not take.

    No rule of the spec is about two steps' fields that a sweep can set, or about a step's and the
    trainer's. So the values that one step gets, or the trainer, are tried together.
    """
    tasks = job.spec.tasks
    if tasks is None or tasks.sweep is None or tasks.list is not None:
        return
    always = [p.name for p in tasks.sweep.parameters if p.field is None and p.when is None]
    yield from _number(SWEPT, job, always)
    whole = job.spec.compression
    shared = job.spec.trainer.to_json(), None if whole is None else whole.to_json()
    if _broken(job, *shared):  # Everything that is tried would be, for no fault of its own.
        return
    told: set[tuple[object, ...]] = set()
    for target in dict.fromkeys(_target(parameter) for parameter in tasks.sweep.parameters):
        for choices in _combinations(tasks.sweep.parameters, target):
            assigned = {choice.parameter.name: choice.value for choice in choices}
            parts = concrete(*shared, {"sweep": {"parameters": _json(choices)}}, assigned)
            for wrong in _broken(job, *parts):
                key, error = _error(job, choices, wrong)
                if key not in told:
                    told.add(key)
                    yield error


def _target(parameter: SweepParameter) -> str:
    """What the parameter sets a part of: the trainer, a step, or nothing but arguments."""
    first, *rest = (parameter.field or "").split(".")
    return rest[0] if first == "compression" else first


def _json(choices: Sequence[_Choice]) -> list[dict[str, Any]]:
    return [choice.parameter.to_json() for choice in choices]


def _combinations(swept: Sequence[SweepParameter], target: str) -> Iterator[tuple[_Choice, ...]]:
    """The choices of the target's parameters that one task may have together, each once."""
    involved = {parameter.name for parameter in swept if _target(parameter) == target}
    for parameter in reversed(swept):  # What a condition names stands before.
        if parameter.name in involved and parameter.when is not None:
            involved.add(parameter.when.parameter)
    order = [(n, parameter) for n, parameter in enumerate(swept) if parameter.name in involved]
    seen: set[tuple[_Choice, ...]] = set()

    def below(place: int, chosen: dict[str, _Choice]) -> Iterator[tuple[_Choice, ...]]:
        if place == len(order):
            yield tuple(c for c in chosen.values() if _target(c.parameter) == target)
            return
        index, parameter = order[place]
        when = parameter.when
        if when is not None:
            given = chosen.get(when.parameter)
            if given is None or given.value not in when.values:
                yield from below(place + 1, chosen)
                return
        for choice in _choices(index, parameter):
            yield from below(place + 1, chosen | {parameter.name: choice})

    for found in islice(below(0, {}), MAX_TRIED) if target else ():
        if found and found not in seen:
            seen.add(found)
            yield found


def _choices(index: int, parameter: SweepParameter) -> Iterator[_Choice]:
    for number, value in enumerate(parameter.values or ()):
        yield _Choice(index, parameter, f"values[{number}]", value)
    if parameter.range is not None:
        kind = int if parameter.range.type == "Int" else str
        yield _Choice(index, parameter, "range.min", kind(parameter.range.min))
        yield _Choice(index, parameter, "range.max", kind(parameter.range.max))


def _error(
    job: OptimizationJob, choices: Sequence[_Choice], wrong: Wrong
) -> tuple[tuple[object, ...], FieldError]:
    """What is told of something wrong with a combination, and by what it is told only once."""
    field, _, problem, remedy = wrong
    blamed = [choice for choice in choices if _path(job, choice.parameter) == field]
    if not blamed and len(choices) == 1:
        blamed = list(choices)
    if not blamed:
        shown = " and ".join(f"{c.parameter.name} {c.value!r}" for c in choices)
        values = {choice.parameter.name: choice.value for choice in choices}
        error = FieldError(SWEPT, values, f"{shown} make {field} invalid: {problem}", remedy)
        return (field, problem), error
    choice = blamed[0]
    kind, _, _ = choice.where.partition(".")
    if kind == "range" and "not an integer" in problem:
        # The value is ours, written as a fraction: another spelling does not help.
        remedy = "write type: Int"
    at = f"{SWEPT}[{choice.index}].{choice.where}"
    problem = f"{choice.value!r} makes {field} invalid: {problem}"
    # Mostly the same is wrong with both ends of a range.
    return (choice.index, kind), FieldError(at, choice.value, problem, remedy)


def _path(job: OptimizationJob, parameter: SweepParameter) -> str:
    """Where in the spec the parameter's field is."""
    first, *rest = (parameter.field or "").split(".")
    if first != "compression" or job.spec.compression is None:
        return ".".join(("spec", first, *rest))
    names = [step.name for step in job.spec.compression.steps]
    return ".".join((f"spec.compression.steps[{names.index(rest[0])}]", *rest[1:]))


def _broken(
    job: OptimizationJob, trainer: dict[str, Any], compression: dict[str, Any] | None
) -> list[Wrong]:
    """What is wrong with a spec.trainer and a spec.compression in their JSON forms."""
    part = "trainer"
    try:
        checked = Trainer.model_validate(trainer)
        part = "compression"
        steps = None if compression is None else Compression.model_validate(compression)
    except ValidationError as error:
        return [_explained(part, found) for found in error.errors(include_url=False)]
    return _against_rules(job, checked, steps)


def _explained(part: str, found: ErrorDetails) -> Wrong:
    whole = found | {"loc": ("spec", part, *found["loc"])}
    return path(whole["loc"]), found["input"], *explain(whole)


def _against_rules(
    job: OptimizationJob, trainer: Trainer, compression: Compression | None
) -> list[Wrong]:
    parts = {"trainer": trainer, "compression": compression, "tasks": None, "workers": Workers()}
    alone = job.model_copy(update={"spec": job.spec.model_copy(update=parts)})
    return [
        (rule.field, rule.value(alone), rule.problem(alone), rule.remedy)
        for rule in RULES
        if not rule.holds(alone)
    ]
