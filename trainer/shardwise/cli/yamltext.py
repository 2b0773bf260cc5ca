"""YAML as a job's manifest may have it: bounded before anything is built of it, and without the
surprises that YAML has for whoever writes one.

Refused with the line: a key given twice, aliases that unfold to too much, deep nesting, tags, keys
that are no texts, numbers that are none. Dates stay texts, as they do for kubectl.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

LARGEST_BYTES: Final = 4 << 20
"""Of a file; the API server takes no object over 1.5 MiB."""
MOST_VALUES: Final = 100_000
"""In a document, with everything that aliases stand for."""
DEEPEST: Final = 64
_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(("str", "int", "float", "bool", "null", "map", "seq"))
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TextError(ValueError):
    """The text is no YAML of a manifest; the message says where and what to do."""


class _Loader(_LOADER):  # type: ignore[misc]  # chosen above
    """Without dates: they are no JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for first, resolvers in _LOADER.yaml_implicit_resolvers.items()
}


def decoded(data: bytes) -> str:
    """The text of a file.

    Raises:
        TextError: it is not UTF-8 (or UTF-16 with a byte order mark), or too large.
    """
    if len(data) > LARGEST_BYTES:
        raise TextError(f"has more than {LARGEST_BYTES >> 20} MiB; no manifest has")
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(
            f"line {line}: is not UTF-8: byte 0x{data[error.start]:02x}; save the file as UTF-8"
        ) from error


def documents(text: str) -> list[Any]:
    """The documents of a text, plain JSON data each.

    Raises:
        TextError: it is no YAML, or not of the kind that a manifest may have.
    """
    try:
        if text.lstrip().startswith("{") and "\t" in text:
            return [_of_json(text)]  # Tabs indent JSON, and never YAML.
        _check(yaml.parse(text, Loader=_LOADER))
        found = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        raise TextError(_said(error, text)) from error
    except yaml.reader.ReaderError as error:
        character = f"#x{error.character:04x}" if isinstance(error.character, int) else "?"
        raise TextError(
            f"holds the character {character}, which YAML does not allow; save it as plain text"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"no YAML: {error}") from error
    for document in found:
        _check_values(document, "")
    return found


def _of_json(text: str) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise TextError(f"the key {twice!r} is given twice; remove one")
        return dict(found)

    try:
        found = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise TextError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise TextError(f"is nested deeper than {DEEPEST} levels; no manifest is") from error
    _check_values(found, "")
    return found


def _said(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    what = " ".join(filter(None, (error.context, error.problem)))
    if mark is None:
        return f"no YAML: {what}"
    lines = text.splitlines()
    tab = mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]
    remedy = "; indent with spaces: YAML takes no tabs" if tab else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: no YAML: {what}{remedy}"


@dataclass
class _Level:
    """A mapping or list that is being read."""

    anchor: str | None
    mapping: bool
    size: int = 1
    keys: dict[str, int] = field(default_factory=dict)
    key_next: bool = True


def _check(events: Iterator[Event]) -> None:
    """Raises TextError where building the documents would take too much, or not be plain data.

    The parser is asked for one event after the other: nothing grows with what the text claims.
    """
    levels: list[_Level] = []
    sizes: dict[str, int] = {}
    for event in events:
        line = event.start_mark.line if event.start_mark else 0
        place = f"line {line + 1}"
        if isinstance(event, DocumentStartEvent):
            sizes = {}
        elif isinstance(event, CollectionEndEvent):
            done = levels.pop()
            if done.anchor is not None:
                sizes[done.anchor] = done.size
            _count(levels, done.size, place)
        elif isinstance(event, AliasEvent):
            size = sizes.get(str(event.anchor))
            if size is None:
                known = any(level.anchor == event.anchor for level in levels)
                what = "refers to itself" if known else "is not there before"
                raise TextError(f"{place}: the alias *{event.anchor} {what}; write its value out")
            _key(levels, f"*{event.anchor}", line, place)
            _count(levels, size, place)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            _refuse_tag(event.tag, place)
            if levels and levels[-1].mapping and levels[-1].key_next:
                raise TextError(f"{place}: a key must be a text, not a mapping or a list")
            _turn(levels)
            if len(levels) >= DEEPEST:
                raise TextError(f"{place}: is nested deeper than {DEEPEST} levels; no manifest is")
            levels.append(_Level(event.anchor, isinstance(event, MappingStartEvent)))
        elif isinstance(event, ScalarEvent):
            _refuse_tag(event.tag, place)
            if event.anchor is not None:
                sizes[event.anchor] = 1
            _key(levels, event.value, line, place)
            _count(levels, 1, place)


def _key(levels: list[_Level], value: str, line: int, place: str) -> None:
    """Notes a scalar where a key stands; it must not have stood there before."""
    if levels and levels[-1].mapping and levels[-1].key_next:
        keys = levels[-1].keys
        if value in keys and value != "<<":
            raise TextError(
                f"{place}: the key {value!r} is given twice, first in line {keys[value] + 1}; "
                "remove one"
            )
        keys[value] = line
    _turn(levels)


def _turn(levels: list[_Level]) -> None:
    if levels and levels[-1].mapping:
        levels[-1].key_next = not levels[-1].key_next


def _count(levels: list[_Level], size: int, place: str) -> None:
    if not levels:
        return
    levels[-1].size += size
    if sum(level.size for level in levels) > MOST_VALUES:
        raise TextError(
            f"{place}: stands for more than {MOST_VALUES} values, aliases written out; no "
            "manifest does"
        )


def _refuse_tag(tag: str | None, place: str) -> None:
    if tag is not None and tag != "!" and tag.removeprefix(_TAG) not in _TAGS:
        raise TextError(f"{place}: the tag {tag} has no place in a manifest; leave it out")


def _check_values(value: Any, path: str) -> None:
    """Raises TextError where something is no JSON. Aliases are counted already, so that this is
    bounded."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                told = json.dumps(key) if isinstance(key, bool | int | float) else str(key)
                raise TextError(
                    f"{path or 'the document'}: the key {told} is no text; put it in quotes"
                )
            _check_values(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check_values(item, f"{path}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TextError(f"{path}: {value} is no number that JSON has; give a finite one")
