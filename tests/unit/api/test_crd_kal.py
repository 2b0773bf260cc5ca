"""kube-api-linter's rules, and those of structural schemas, over the generated CRD."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from shardwise.api.crd import definition
from shardwise.api.schema import Schema, fields, structural

SCHEMA = structural(cel=True)
FIELDS = dict(fields(SCHEMA))
STATUS = SCHEMA["properties"]["status"]

# The issue fixes these: a mapping is what users expect for arguments, and what Kubernetes itself
# has for labels and annotations.
MAPS = {
    "spec.trainer.parameters",
    "spec.compression.steps[].distill.student.parameters",
    "spec.compression.steps[].distill.teacher.parameters",
    "spec.tasks.list[].parameters",
    "spec.tasks.list[].compression.steps[].distill.student.parameters",
    "spec.tasks.list[].compression.steps[].distill.teacher.parameters",
    "spec.template.metadata.labels",
    "spec.template.metadata.annotations",
}
# Parts of Kubernetes' own types, checked by the API server when the pods are made.
OPEN = {"spec.output.volume", "spec.checkpoint.volume", "spec.template.spec"}
# Kueue's contract and the API conventions know no other form of it.
BOOLEANS = {"spec.suspend"}
# The issue fixes the literal `partition: parameters`.
LOWERCASE_ENUMS = {"spec.trainer.partition"}
API_SERVERS = {"apiVersion", "kind", "metadata"}


def of_type(kind: str) -> dict[str, Schema]:
    return {
        path: node
        for path, node in FIELDS.items()
        if node.get("type") == kind and path not in API_SERVERS
    }


def nodes(schema: Any) -> Iterator[Schema]:
    """Every schema: fields, list items, values of maps."""
    yield schema
    for child in schema.get("properties", {}).values():
        yield from nodes(child)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key])


@pytest.mark.parametrize("path", [path for path in FIELDS if path != "metadata"])
def test_commentstart(path: str) -> None:
    name = path.rpartition(".")[2]
    description = FIELDS[path].get("description", "")
    assert re.match(rf"{name} \S", description), description
    assert description.endswith("."), "ends its sentence"


def test_conditions_come_first_in_status() -> None:
    assert next(iter(STATUS["properties"])) == "conditions"
    conditions = STATUS["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    required = {"type", "status", "lastTransitionTime", "reason", "message"}
    assert set(conditions["items"]["required"]) == required
    assert set(conditions["items"]["properties"]) == {*required, "observedGeneration"}


def test_integers_have_a_format_and_bounds() -> None:
    for path, node in of_type("integer").items():
        assert node["format"] in ("int32", "int64"), path
        assert -(2**53) < node["minimum"] <= node["maximum"] < 2**53, path
        if node["format"] == "int32":
            assert node["maximum"] < 2**31, path


def test_maxlength() -> None:
    for node in nodes(SCHEMA):
        if "x-kubernetes-int-or-string" in node:
            assert "maxLength" in node, node
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node or node in (FIELDS["apiVersion"], FIELDS["kind"]), node
        if node.get("type") == "array":
            assert "maxItems" in node, node
        if "additionalProperties" in node:
            assert "maxProperties" in node, node


def test_nobools_nofloats_nonullable() -> None:
    assert set(of_type("boolean")) == BOOLEANS
    for node in nodes(SCHEMA):
        assert node.get("type") not in ("number", "null"), node
        assert "nullable" not in node, node


def test_nomaps() -> None:
    assert {path for path, node in FIELDS.items() if "additionalProperties" in node} == MAPS


def test_open_objects_are_these_alone() -> None:
    marked = "x-kubernetes-preserve-unknown-fields"
    assert {path for path, node in FIELDS.items() if marked in node} == OPEN


def test_nodurations_nophase_notimestamps() -> None:
    for path, node in FIELDS.items():
        name = path.rpartition(".")[2].lower()
        assert not name.endswith(("duration", "timeout", "phase", "timestamp")), path
        if "deadline" in name:
            assert name.endswith("seconds"), path
        if node.get("format") == "date-time":
            assert name.endswith("time"), path


def test_optionalorrequired() -> None:
    for node in nodes(SCHEMA):
        required = set(node.get("required", ()))
        assert required <= set(node.get("properties", {}))
        for name in required:
            assert "default" not in node["properties"][name], f"{name} is required"


def test_ssatags() -> None:
    for path, node in of_type("array").items():
        kind = node["x-kubernetes-list-type"]
        assert kind in ("atomic", "set", "map"), path
        if kind == "map":
            keys = node["x-kubernetes-list-map-keys"]
            assert set(keys) <= set(node["items"]["required"]), path
        elif node["items"].get("type") == "object":
            raise AssertionError(f"{path}: a list of objects is a map by some key")


def test_statusoptional_and_statussubresource() -> None:
    assert "required" not in STATUS
    assert "status" not in SCHEMA["required"]
    for path, node in FIELDS.items():
        if path.startswith("status.") and "[]" not in path and node.get("type") == "object":
            assert "required" not in node, path
        if path.startswith("status"):
            assert "default" not in node, path
    assert definition(cel=True)["spec"]["versions"][0]["subresources"]["status"] == {}


def test_enums_are_camel_case() -> None:
    for path, node in FIELDS.items():
        if "enum" in node and path not in LOWERCASE_ENUMS:
            assert all(re.fullmatch("[A-Z][A-Za-z0-9]*", value) for value in node["enum"]), path


def test_jsontags() -> None:
    for path in FIELDS:
        assert re.fullmatch("[a-z][A-Za-z0-9]*", path.rpartition(".")[2].rstrip("[]")), path


def test_arrays_of_structs_have_a_required_field() -> None:
    for path, node in of_type("array").items():
        if node["items"].get("type") == "object":
            assert node["items"]["required"], path


@pytest.mark.parametrize("cel", [True, False], ids=["with CEL", "without CEL"])
def test_the_schema_is_structural(cel: bool) -> None:
    forbidden = {
        "$ref", "$defs", "title", "const", "definitions", "patternProperties", "propertyNames",
        "dependencies", "exclusiveMinimum", "exclusiveMaximum", "oneOf", "allOf", "not",
    }  # fmt: skip
    for node in nodes(structural(cel=cel)):
        assert not forbidden & set(node), node
        assert not {"properties", "additionalProperties"} <= set(node), node
        if "x-kubernetes-int-or-string" in node:
            # The server prints what does not fit anyOf beside the words that are wanted.
            assert not {"type", "anyOf"} & set(node)
        else:
            assert "anyOf" not in node
            assert node["type"] in ("object", "array", "string", "integer", "boolean")
        assert node.get("default", "") is not None


def test_metadata_is_left_to_the_api_server() -> None:
    """Any more, a description even, and API servers refuse the whole CRD."""
    assert SCHEMA["properties"]["metadata"] == {"type": "object"}
