"""From `entrypoint: module:function` and its parameters to a Task."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from shardwise.engine import seeds
from shardwise.engine.task import Task
from shardwise.engine.usercode import UserCodeError, user_code

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def load_task(entrypoint: str, parameters: Mapping[str, int | str], seed: int) -> Task:
    """Import the entrypoint, call it with the parameters, and check what it gives.

    A parameter is converted to the type that the function's annotation names (int, float, bool or
    str), because a manifest holds no floats. The random generators are seeded from the job's seed
    before the call, so that initial weights follow from the spec.

    Raises:
        UserCodeError: the module or function cannot be had, a parameter does not fit, the function
            raised, or it gave something else than a Task.
    """
    function = _function(entrypoint)
    arguments = _arguments(entrypoint, function, parameters)
    seeds.seed_everything(seeds.derive(seed, "task"))
    with user_code(f"spec.trainer.entrypoint {entrypoint}"):
        task = function(**arguments)
    if not isinstance(task, Task):
        raise UserCodeError(
            f"spec.trainer.entrypoint: {entrypoint} gave {type(task).__name__}, not a "
            "shardwise.Task; return one"
        )
    return task


def _function(entrypoint: str) -> Callable[..., Any]:
    name, _, attribute = entrypoint.partition(":")
    with user_code(f"spec.trainer.entrypoint: importing {name}"):
        module = importlib.import_module(name)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UserCodeError(
            f"spec.trainer.entrypoint: module {name} has no function {attribute!r}; write "
            "module:function with a function that returns a shardwise.Task"
        )
    return function  # type: ignore[no-any-return]


def _arguments(
    entrypoint: str, function: Callable[..., Any], parameters: Mapping[str, int | str]
) -> dict[str, Any]:
    signature = inspect.signature(function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    known = [
        name
        for name, p in signature.parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    unknown = sorted(set(parameters) - set(known))
    if unknown and not takes_any:
        raise UserCodeError(
            f"spec.trainer.parameters.{unknown[0]}: {entrypoint} takes no such parameter; "
            f"it takes {', '.join(known) or 'none'}"
        )
    missing = [
        name
        for name in known
        if name not in parameters and signature.parameters[name].default is inspect.Parameter.empty
    ]
    if missing:
        raise UserCodeError(
            f"spec.trainer.parameters.{missing[0]}: {entrypoint} needs it; add it to the manifest"
        )
    with user_code(f"spec.trainer.entrypoint {entrypoint}: its annotations"):
        hints = get_type_hints(function)
    return {name: _convert(name, value, hints.get(name)) for name, value in parameters.items()}


def _convert(name: str, value: int | str, kind: Any) -> Any:
    try:
        if kind is bool:
            return _boolean(value)
        if kind in (int, float, str):
            return kind(value)
    except ValueError as error:
        raise UserCodeError(
            f"spec.trainer.parameters.{name}: {value!r} is no {kind.__name__}; "
            f"the entrypoint's annotation asks for one"
        ) from error
    return value


def _boolean(value: int | str) -> bool:
    text = str(value).lower()
    if text not in _TRUE + _FALSE:
        raise ValueError(text)
    return text in _TRUE
