"""Dataclasses as JSON values and back, every field checked against its annotation.

Used by `protocol` alone, which says what the messages are; this module knows none of them. It
covers the few kinds of fields that messages have: numbers, booleans, strings, bytes (base64),
literals, tuples, mappings, nested dataclasses and their unions. `Annotated` with a bound of this
module limits what a field may hold, before the field is looked at any closer: what comes in is
written by the code of any job.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps, and that a status may hold."""


class ProtocolError(ValueError):
    """A line is no message of this protocol, or a message does not fit into a line."""


@dataclass(frozen=True, slots=True)
class AtMost:
    """A longer string, list or object, or a larger integer, is refused: our workers send none."""

    most: int

    def apply(self, hint: Any, value: Any, where: str) -> Any:
        size = len(value) if isinstance(value, str | list | dict) else value
        if isinstance(size, int) and size > self.most:
            raise ProtocolError(f"{where} is too long or too large: {_size(size)} > {self.most}")
        return from_json(hint, value, where)


@dataclass(frozen=True, slots=True)
class Cut:
    """A longer string is cut; of an object with more entries the first ones are kept, their keys
    cut too. For what comes from a user's code, whose job goes on nevertheless."""

    most: int
    key: int = 63
    tail: bool = False
    """A string's end is kept, not its beginning."""

    def apply(self, hint: Any, value: Any, where: str) -> Any:
        if isinstance(value, str):
            value = value[-self.most :] if self.tail else value[: self.most]
        elif isinstance(value, dict):
            value = {key[: self.key]: each for key, each in islice(value.items(), self.most)}
        return from_json(hint, value, where)


@dataclass(frozen=True, slots=True)
class Between:
    """A number outside is brought to the nearer end; NaN is taken for the least."""

    least: float
    most: float

    def apply(self, hint: Any, value: Any, where: str) -> Any:
        number = from_json(hint, value, where)
        return min(self.most, max(self.least, number)) if number == number else self.least


@dataclass(frozen=True, slots=True)
class Plain:
    """A JSON value of any shape, within bounds: strings are cut, integers brought into the range
    of a status; what is deeper or has more values is refused."""

    depth: int
    values: int
    text: int

    def apply(self, hint: Any, value: Any, where: str) -> Any:
        left = self.values

        def plain(value: Any, depth: int) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise ProtocolError(f"{where} has more than {self.values} values")
            if isinstance(value, dict | list) and depth == 0:
                raise ProtocolError(f"{where} is nested more than {self.depth} deep")
            if isinstance(value, dict):
                return {
                    _string(key[: self.text], where): plain(each, depth - 1)
                    for key, each in value.items()
                }
            if isinstance(value, list):
                return [plain(each, depth - 1) for each in value]
            if isinstance(value, str):
                return _string(value[: self.text], where)
            if isinstance(value, int) and not isinstance(value, bool):
                return min(SAFE_INTEGER, max(-SAFE_INTEGER, value))
            return value

        return from_json(hint, plain(value, self.depth), where)


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
    if origin is Annotated:
        return args[1].apply(args[0], value, where)
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
    hints = get_type_hints(kind, include_extras=True)
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
    if not 0 <= value <= SAFE_INTEGER:
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


def _size(size: int) -> str:
    # The text of an integer of a million digits would take seconds.
    return str(size) if size <= SAFE_INTEGER else "more than 2**53"


def _wrong(where: str, expected: str, value: Any) -> ProtocolError:
    return ProtocolError(f"{where} is {json_type(value)}, not {expected}")
