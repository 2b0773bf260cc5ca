"""Dataclasses as JSON values and back, every field checked against its annotation.

Used by `protocol` alone, which says what the messages are; this module knows none of them. It
covers the few kinds of fields that messages have: numbers, booleans, strings, bytes (base64),
literals, tuples, mappings, nested dataclasses and their unions.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class ProtocolError(ValueError):
    """A line is no message of this protocol, or a message does not fit into a line."""


def to_json(value: Any) -> Any:
    """The value in JSON's terms; a dataclass's keys in camelCase."""
    if is_dataclass(value):
        return {_camel(each.name): to_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    if isinstance(value, Mapping):
        return {key: to_json(each) for key, each in value.items()}
    return value


def from_json(hint: Any, value: Any, where: str) -> Any:
    """The value that the annotation `hint` asks for.

    Raises:
        ProtocolError: the value does not fit; the message begins with `where`.
    """
    if hint is Any:
        return value
    if hint in _SIMPLE:
        return _SIMPLE[hint](value, where)
    if is_dataclass(hint):
        return _record(hint, value, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in args:
            raise ProtocolError(f"{where} is none of {', '.join(args)}")
        return value
    if origin in (Union, UnionType):
        return _union(args, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return tuple(from_json(args[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return {
            _string(key, where): from_json(args[1], each, f"{where}.{key[:40]}")
            for key, each in value.items()
        }
    raise TypeError(f"{where}: messages have no fields of type {hint}")


def json_type(value: Any) -> str:
    """What JSON calls the value's type, with its article."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        NoneType: "null",
    }
    return names.get(type(value), "a number")


@functools.cache
def _layout(kind: Any) -> tuple[tuple[str, str, Any, bool], ...]:
    """Name, key, annotation and whether it must be there, of every field of a dataclass."""
    hints = get_type_hints(kind)
    return tuple(
        (
            each.name,
            _camel(each.name),
            hints[each.name],
            each.default is MISSING and each.default_factory is MISSING,
        )
        for each in fields(kind)
    )


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    read = {}
    for name, key, hint, required in _layout(kind):
        if key in value:
            read[name] = from_json(hint, value[key], f"{where}.{key}")
        elif required:
            raise ProtocolError(f"{where}.{key} is missing")
    return kind(**read)


def _union(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    for hint in hints[:-1]:
        try:
            return from_json(hint, value, where)
        except ProtocolError:
            continue
    if hints[-1] is NoneType and value is not None:
        return from_json(hints[0], value, where)  # for its error message
    return from_json(hints[-1], value, where)


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "a string", value)
    # A lone surrogate, e.g. of an odd file name in a traceback, could not be written anywhere.
    return value.encode("utf-8", "replace").decode()


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(where, "an integer", value)
    if not 0 <= value < 1 << 63:
        raise ProtocolError(f"{where} is negative or too large")
    return value


def _float(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(where, "a number", value)
    try:
        return float(value)
    except OverflowError as error:
        raise ProtocolError(f"{where} is too large") from error


def _bytes(value: Any, where: str) -> bytes:
    text = _string(value, where)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ProtocolError(f"{where} is not base64: {error}") from error


def _null(value: Any, where: str) -> None:
    if value is not None:
        raise _wrong(where, "null", value)


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "a boolean", value)
    return value


_SIMPLE: dict[Any, Callable[[Any, str], Any]] = {
    bool: _boolean,
    str: _string,
    int: _count,
    float: _float,
    bytes: _bytes,
    NoneType: _null,
}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _wrong(where: str, expected: str, value: Any) -> ProtocolError:
    return ProtocolError(f"{where} is {json_type(value)}, not {expected}")
