"""Whether the parameters of a job fit its entrypoint, told from the entrypoint's source text.

Pure, and imports nothing of the user's: the command line and the operator ask before any pod
starts. Where the text does not tell for certain, nothing is said; the worker will.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shardwise.api.conditions import INVALID_SPEC, INVALID_TASKS
from shardwise.api.errors import FieldError
from shardwise.api.tasks import Tasks
from shardwise.api.types import OptimizationJob

PARAMETERS = "spec.trainer.parameters"
TRAINERS = {field.lower(): field for field in ("epochs", "steps", "batchSize", "seed")}
"""What a sweep may set of spec.trainer, by its name in small letters."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function can be called with by name."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    """Those without a default."""
    takes_any: bool
    """It has a **keywords parameter."""


def parameters_of(source: str, function: str) -> Signature | None:
    """The signature of a module's function; None where the text does not tell it: there is no
    plain `def` of that name at the module's top level, or it is decorated, or something later
    may bind the name anew, or the text is not Python."""
    found = function_of(source, function)
    if found is None:
        return None
    arguments = found[1].args
    # Positional-only parameters cannot be given by name, so a default is all they can have.
    positional = [argument.arg for argument in arguments.args]
    without = len(arguments.posonlyargs) + len(positional) - len(arguments.defaults)
    required = positional[: max(without - len(arguments.posonlyargs), 0)]
    keyword = [argument.arg for argument in arguments.kwonlyargs]
    required += [
        name
        for name, default in zip(keyword, arguments.kw_defaults, strict=True)
        if default is None
    ]
    return Signature((*positional, *keyword), tuple(required), arguments.kwarg is not None)


def function_of(source: str, function: str) -> tuple[ast.Module, ast.FunctionDef] | None:
    """A module and a function of it; None where `parameters_of` tells nothing."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    bound = [statement for statement in module.body if _binds(statement, function)]
    last = bound[-1] if bound else None
    if not isinstance(last, ast.FunctionDef) or last.decorator_list:
        return None
    return module, last


def _binds(statement: ast.stmt, name: str) -> bool:
    """Whether the statement may give the name a meaning in the module."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return statement.name == name
    for node in ast.walk(statement):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found = node.name == name
            case ast.Name(id=id, ctx=ast.Store() | ast.Del()):
                found = id == name
            case ast.alias():
                found = node.name == "*" or (node.asname or node.name.partition(".")[0]) == name
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                found = node.name == name
            case _:
                found = False
        if found:
            return True
    return False


def signature_errors(job: OptimizationJob, signature: Signature) -> list[FieldError]:
    """Parameters of the job and its tasks that the entrypoint does not take, and those that it
    needs and does not get. A name that is wrong in many tasks is told once."""
    tasks, entrypoint = job.spec.tasks, job.spec.trainer.entrypoint
    found: dict[str, FieldError] = {}
    if not signature.takes_any:
        for at, name, value in _given(job):
            if name not in signature.names and name not in found:
                found[name] = FieldError(
                    at,
                    value,
                    f"{name!r} is no parameter of {entrypoint}",
                    _remedy(at, name, signature.names),
                    INVALID_SPEC if at.startswith(PARAMETERS) else INVALID_TASKS,
                )
    missing = [name for name in signature.required if name not in job.spec.trainer.parameters]
    return [*found.values(), *_missing(missing, tasks, entrypoint)]


def _remedy(at: str, name: str, names: tuple[str, ...]) -> str:
    # learningRate and learning_rate are near for a reader, not for difflib.
    plain = {known.replace("_", "").lower(): known for known in names}
    bare = name.replace("_", "").lower()
    near = difflib.get_close_matches(bare, plain, n=1)
    if near:
        return f"did you mean {plain[near[0]]!r}?"
    if bare in TRAINERS and at.startswith("spec.tasks.sweep."):
        field = TRAINERS[bare]
        return f"for spec.trainer.{field} add field: trainer.{field}; the function {_takes(names)}"
    return f"remove it; the function {_takes(names)}"


def _takes(names: tuple[str, ...]) -> str:
    return f"takes {', '.join(names)}" if names else "takes none"


def _given(job: OptimizationJob) -> Iterator[tuple[str, str, object]]:
    """Every argument: where it stands, its name, its value."""
    for name, value in job.spec.trainer.parameters.items():
        yield f"{PARAMETERS}.{name}", name, value
    tasks = job.spec.tasks
    if tasks is None:
        return
    for index, item in enumerate(tasks.list or ()):
        for name, value in item.parameters.items():
            yield f"spec.tasks.list[{index}].parameters.{name}", name, value
    if tasks.sweep is not None:
        for index, parameter in enumerate(tasks.sweep.parameters):
            if parameter.field is None:
                at = f"spec.tasks.sweep.parameters[{index}].name"
                yield at, parameter.name, parameter.name


def _missing(names: list[str], tasks: Tasks | None, entrypoint: str) -> Iterator[FieldError]:
    """For each name that spec.trainer does not give: is there a task without it?"""
    for name in names:
        problem = f"is missing, and {entrypoint} needs it"
        if tasks is None:
            yield FieldError(f"{PARAMETERS}.{name}", None, problem, "add it")
        elif tasks.sweep is not None:
            swept = _swept(tasks).get(name)
            if swept is None:
                yield FieldError(
                    f"{PARAMETERS}.{name}",
                    None,
                    problem,
                    "add it, or sweep over it",
                )
            elif swept[1]:
                yield FieldError(
                    f"spec.tasks.sweep.parameters[{swept[0]}].when",
                    name,
                    f"leaves {name!r} out of some tasks, and {entrypoint} needs it",
                    f"add {PARAMETERS}.{name} for those, or remove when",
                    INVALID_TASKS,
                )
        else:
            for index, item in enumerate(tasks.list or ()):
                if name not in item.parameters:
                    yield FieldError(
                        f"spec.tasks.list[{index}].parameters.{name}",
                        None,
                        problem,
                        f"add it there, or to {PARAMETERS} for all tasks",
                        INVALID_TASKS,
                    )
                    break


def _swept(tasks: Tasks) -> Mapping[str, tuple[int, bool]]:
    """The arguments that a sweep gives: their place, and whether only under a condition."""
    assert tasks.sweep is not None
    return {
        parameter.name: (index, parameter.when is not None)
        for index, parameter in enumerate(tasks.sweep.parameters)
        if parameter.field is None
    }
