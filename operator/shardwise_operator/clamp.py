"""Brings a status into the form that the CRD's schema accepts, whatever it is made of.

Used on what is about to be written, for parts of it are a worker's words, and on what is read, for
anybody with the right to may have edited it. A value beyond a bound becomes the bound; what has no
form is left out. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from shardwise.api.base import SAFE_INTEGER
from shardwise.api.spec import MAX_PODS
from shardwise.api.types import OptimizationJobStatus

ROUNDS = 6
"""A value that is mended may show what is wrong beside it; deeper than this nothing lies."""
MOST_GENERATIONS = SAFE_INTEGER // 2
"""On reading: leaves room to count on from it."""
MOST_SECONDS = 100 * 365 * 86_400
_GONE = object()
_BOUNDS = {"less_than_equal": "le", "greater_than_equal": "ge"}


def clamped(status: object) -> dict[str, Any]:
    """The status as the schema accepts it; never an error."""
    content = _plain(status)
    if not isinstance(content, dict):
        return {}
    for _ in range(ROUNDS):
        _single(content, "", _MAP_KEYS)
        try:
            return OptimizationJobStatus.model_validate(content).to_json()
        except ValidationError as error:
            for each in error.errors(include_url=False):
                _mend(content, each["loc"], each["type"], each.get("ctx") or {})
            content = _without_gone(content)
    return _good_parts(content)


def read(status: object) -> dict[str, Any]:
    """A status that is safe to go on from."""
    found = clamped(_whole_conditions(status))
    workers = found.get("workers") or {}
    for key in ("desired", "min", "max", "standby", "ready", "members"):
        if key in workers:
            workers[key] = min(workers[key], MAX_PODS)
    if "generation" in workers:
        workers["generation"] = min(workers["generation"], MOST_GENERATIONS)
    if "activeSeconds" in found:
        found["activeSeconds"] = min(found["activeSeconds"], MOST_SECONDS)
    return found


def _whole_conditions(status: object) -> object:
    """With what a condition has to have: that a job has ended counts, whatever else is missing."""
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    if not isinstance(conditions, list):
        return status
    added = {"reason": "Unknown", "message": "", "lastTransitionTime": "2000-01-01T00:00:00Z"}
    whole = [{**added, **entry} if isinstance(entry, Mapping) else entry for entry in conditions]
    return {**status, "conditions": whole} if isinstance(status, Mapping) else status


def word(text: object, otherwise: str) -> str:
    """A reason as the schema wants it: one word of letters that begins with a capital."""
    letters = re.sub("[^A-Za-z]", "", str(text)[:200])[:63]
    return letters[:1].upper() + letters[1:] if letters else otherwise


def _plain(value: object, depth: int = 0) -> Any:
    """Dicts, lists and what JSON has besides, no deeper than any status is."""
    if depth > 16:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="replace").decode()
    return value


def _mend(content: Any, at: tuple[int | str, ...], kind: str, context: Mapping[str, Any]) -> None:
    *way, last = at
    for part in way:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return
    if kind == "missing" or not isinstance(content, dict | list):
        # What lacks a part says nothing, and goes as a whole.
        if isinstance(content, dict):
            content[_GONE] = True
        return
    try:
        value = content[last]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return
    mended: Any = _GONE
    if kind in _BOUNDS:
        mended = context[_BOUNDS[kind]]
    elif kind == "too_long" and isinstance(value, list):
        mended = value[: context["max_length"]]
    elif kind == "string_pattern_mismatch" and last in ("reason", "type", "cause"):
        mended = word(value, "Unknown")
    content[last] = mended  # type: ignore[index]


def _without_gone(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_gone(item) for key, item in value.items() if _there(item)}
        return {key: item for key, item in kept.items() if key is not _GONE}
    if isinstance(value, list):
        return [_without_gone(item) for item in value if _there(item)]
    return value


def _there(value: Any) -> bool:
    return value is not _GONE and not (isinstance(value, dict) and _GONE in value)


def _good_parts(content: Mapping[str, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {}
    for key, value in content.items():
        try:
            good |= OptimizationJobStatus.model_validate({key: value}).to_json()
        except ValidationError:
            continue
    return good


# Lists whose items go by a key: a server refuses one key twice.


def _map_keys(schema: Mapping[str, Any], defs: Mapping[str, Any], at: str) -> Iterator[Any]:
    while "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    for option in schema.get("anyOf") or ():
        yield from _map_keys(option, defs, at)
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys:
        yield at, keys[0]
    if "items" in schema:
        yield from _map_keys(schema["items"], defs, at)
    for name, inner in (schema.get("properties") or {}).items():
        yield from _map_keys(inner, defs, f"{at}.{name}")


def _single(value: Any, at: str, keys: Mapping[str, str]) -> None:
    """Of items with the same key, the last stays."""
    if isinstance(value, dict):
        for name, item in value.items():
            if at + f".{name}" in keys and isinstance(item, list):
                key = keys[f"{at}.{name}"]
                by = {
                    str(entry.get(key)) if isinstance(entry, dict) else str(place): entry
                    for place, entry in enumerate(item)
                }
                value[name] = list(by.values())
            _single(value[name], f"{at}.{name}", keys)
    elif isinstance(value, list):
        for item in value:
            _single(item, at, keys)


def _keys_of_lists() -> dict[str, str]:
    schema = OptimizationJobStatus.model_json_schema(by_alias=True)
    return dict(_map_keys(schema, schema.get("$defs") or {}, ""))


_MAP_KEYS: Mapping[str, str] = _keys_of_lists()
