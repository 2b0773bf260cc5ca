"""What an API server with the CRD answers to a manifest, as far as the tests need it.

In a server's order: unknown fields; nothing for null; defaults, each as it stands; the schema; then
CEL, unless what the schema found keeps the server from it. tests/cluster holds it to a real one.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import cel
import jsonschema

from shardwise.api.schema import Schema, structural

RULES = "x-kubernetes-validations"
# Of these, a server says only that they must be mended before it evaluates rules.
BLOCKING = {"type", "anyOf", "required", "enum", "maxLength", "maxItems", "maxProperties"}

CEL_ERRORS = (KeyError, RuntimeError, TypeError, ValueError)
"""What the evaluator raises where a server prints an error instead of the rule's message."""


@functools.cache
def schema(with_cel: bool = True) -> Schema:
    return structural(cel=with_cel)


def defaulted(value: Any, node: Schema) -> Any:
    """What the server makes of an object before it evaluates rules."""
    if isinstance(value, list) and "items" in node:
        return [defaulted(item, node["items"]) for item in value]
    if not isinstance(value, Mapping) or not {"properties", "additionalProperties"} & node.keys():
        return value
    value = {name: item for name, item in value.items() if item is not None}
    if "properties" not in node:
        return value
    for name, child in node["properties"].items():
        if name not in value and "default" in child:
            value[name] = copy.deepcopy(child["default"])
        if name in value:
            value[name] = defaulted(value[name], child)
    return value


def placed(value: Any, node: Schema, path: str = "") -> Iterator[tuple[str, Any, Schema]]:
    """Every value of the object with its path and its schema, parents first."""
    yield path, value, node
    if isinstance(value, Mapping):
        for name, child in value.items():
            at = f"{path}.{name}" if path else str(name)
            below = node.get("properties", {}).get(name, node.get("additionalProperties"))
            if isinstance(below, dict):
                yield from placed(child, below, at)
    if isinstance(value, list) and "items" in node:
        for index, item in enumerate(value):
            yield from placed(item, node["items"], f"{path}[{index}]")


def broken(rule: Mapping[str, str], value: Any) -> bool:
    """Raises what the evaluation raises: of such a rule, a server prints the error."""
    holds = cel.evaluate(rule["rule"], {"self": value})
    assert isinstance(holds, bool)
    return not holds


def refusals(manifest: dict[str, Any], with_cel: bool = True) -> list[str]:
    """`field: text` for each thing that the server refuses; empty where it takes the object."""
    whole = schema(with_cel)
    unknown = list(_unknown(manifest, whole))
    if unknown:
        return [f'{path}: unknown field "{path}"' for path in unknown]
    seen = defaulted(manifest, whole)
    validator = jsonschema.Draft7Validator(_plain(whole))
    errors = list(validator.iter_errors(seen))
    found = [f"{_path(error)}: {error.message}" for error in errors]
    found += _duplicates(seen, whole)
    if not BLOCKING & {str(error.validator) for error in errors}:
        found += list(_said(seen, whole))
    return found


def _said(seen: dict[str, Any], whole: Schema) -> Iterator[str]:
    for path, value, node in placed(seen, whole):
        for rule in node.get(RULES, ()):
            if "oldSelf" not in rule["rule"] and broken(rule, value):
                text = rule["message"]
                if "messageExpression" in rule:
                    text = cel.evaluate(rule["messageExpression"], {"self": value})
                yield f"{path}{rule.get('fieldPath', '')}: {text}"


def _unknown(manifest: dict[str, Any], whole: Schema) -> Iterator[str]:
    for path, value, node in placed(manifest, whole):
        if isinstance(value, Mapping) and "properties" in node:
            for name in value.keys() - node["properties"].keys():
                yield f"{path}.{name}" if path else str(name)


def _duplicates(seen: dict[str, Any], whole: Schema) -> Iterator[str]:
    for path, value, node in placed(seen, whole):
        kind = node.get("x-kubernetes-list-type")
        if kind not in ("map", "set") or not isinstance(value, list):
            continue
        keys = node.get("x-kubernetes-list-map-keys", ())
        marks = [
            tuple(item.get(key) for key in keys) if isinstance(item, Mapping) else item
            for item in value
        ]
        for index, mark in enumerate(marks):
            if mark in marks[:index]:
                yield f"{path}[{index}]: Duplicate value: {mark!r}"


def _path(error: jsonschema.ValidationError) -> str:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    if error.validator == "required":
        path += "." + error.message.split("'")[1]
    return path.removeprefix(".")


def _plain(node: Any) -> Any:
    """The schema in JSON schema's own words."""
    if isinstance(node, dict):
        plain = {key: _plain(value) for key, value in node.items() if key != RULES}
        if node.get("x-kubernetes-int-or-string") is True:
            plain["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        return plain
    return [_plain(item) for item in node] if isinstance(node, list) else node
