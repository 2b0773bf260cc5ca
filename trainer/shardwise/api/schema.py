"""pydantic's JSON schema made structural, as a CustomResourceDefinition needs it.

A CRD's schema has no references, no null types, no titles, no additionalProperties beside
properties. Knows JSON schema; knows nothing of a particular field except where rules attach.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from shardwise.api.field_rules import KEYS, add_rules
from shardwise.api.rules import CEL_RULES
from shardwise.api.types import OptimizationJob

Schema = dict[str, Any]

# What a CRD's schema must not have, or what the API server says better.
_DROPPED = ("title", "propertyNames", "$defs")


def structural(*, cel: bool) -> Schema:
    """The schema of an OptimizationJob, with or without the CEL rules."""
    raw = OptimizationJob.model_json_schema(by_alias=True)
    schema = _rewrite(raw, raw["$defs"])
    properties = schema["properties"]
    # The API server owns these three; about metadata it accepts not even a description.
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string", "description": properties[name]["description"]}
    properties["metadata"] = {"type": "object"}
    schema["required"] = ["spec"]
    if cel:
        _attach_rules(schema)
        _add_rules(properties["spec"])
    _drop_keys(schema)
    return schema


def node_at(schema: Schema, path: str) -> Schema:
    """The schema of `spec.trainer`, `spec.tasks.list[]` and the like; "" is the whole."""
    for name in filter(None, path.split(".")):
        schema = schema["properties"][name.removesuffix("[]")]
        if name.endswith("[]"):
            schema = schema["items"]
    return schema


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field with its path, parents first; the items of a list as `field[]`."""
    for name, child in schema.get("properties", {}).items():
        at = f"{path}.{name}" if path else name
        yield at, child
        yield from fields(child, at)
        if "items" in child:
            yield from fields(child["items"], f"{at}[]")


def _rewrite(node: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _merge(node, definitions)
    _rewrite_mapping(node, definitions)
    for key in _DROPPED:
        node.pop(key, None)
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    if node.get("default", ...) is None:
        del node["default"]
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "properties" in node:
        node.pop("additionalProperties", None)
        node["properties"] = {
            name: _rewrite(child, definitions) for name, child in node["properties"].items()
        }
    if "items" in node:
        node["items"] = _rewrite(node["items"], definitions)
    if "default" in node:
        node["default"] = _whole(node["default"], node)
    return node


def _whole(value: Any, node: Schema) -> Any:
    """A default with the defaults of its fields written out.

    The API server holds a default against the CEL rules as it stands, before the defaults inside
    of it are filled in.
    """
    if not isinstance(value, dict):
        return value
    whole = dict(value)
    for name, child in node.get("properties", {}).items():
        if name in whole:
            whole[name] = _whole(whole[name], child)
        elif "default" in child:
            whole[name] = copy.deepcopy(child["default"])
    return whole


def _rewrite_mapping(node: Schema, definitions: dict[str, Schema]) -> None:
    """A mapping's values have one schema; of its keys, a CRD can say nothing."""
    patterns = node.pop("patternProperties", None)
    if patterns:
        pattern, node["additionalProperties"] = next(iter(patterns.items()))
        node[KEYS] = pattern, node["propertyNames"]["maxLength"]
    values = node.get("additionalProperties")
    if isinstance(values, dict):
        node["additionalProperties"] = _rewrite(values, definitions)
    else:
        node.pop("additionalProperties", None)


def _merge(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """One object out of references and optional types; what stands nearer to the field wins."""
    node = dict(node)
    if "$ref" in node:
        target = definitions[node.pop("$ref").rpartition("/")[2]]
        return _merge({**copy.deepcopy(target), **node}, definitions)
    choices = [choice for choice in node.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del node["anyOf"]
        return _merge({**_merge(choices[0], definitions), **node}, definitions)
    return node


def _attach_rules(schema: Schema) -> None:
    for rule in CEL_RULES:
        for place in rule.places:
            node = node_at(schema, place)
            found = {"rule": rule.expression, "message": rule.cel_message}
            if rule.field_path:
                found["fieldPath"] = rule.field_path
            node.setdefault("x-kubernetes-validations", []).append(found)


def _add_rules(node: Schema, number: int = 1) -> None:
    """Rules for what single fields take, at each node below; `number` is how many of it there may
    be in one object."""
    add_rules(node, number)
    for child in node.get("properties", {}).values():
        _add_rules(child, number)
    if "items" in node:
        _add_rules(node["items"], number * node["maxItems"])
    if isinstance(node.get("additionalProperties"), dict):
        _add_rules(node["additionalProperties"], number * node["maxProperties"])


def _drop_keys(node: Schema) -> None:
    node.pop(KEYS, None)
    for child in node.get("properties", {}).values():
        _drop_keys(child)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            _drop_keys(node[key])
