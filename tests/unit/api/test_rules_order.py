"""The CRD's CEL rules in an API server's order: defaults as they stand, fields that are absent.

A server holds each default against the rules in scope before it fills in the defaults inside it,
and refuses the whole CRD where a rule does not hold or finds a field missing.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import cel
import jsonschema
import pytest
from api_server import CEL_ERRORS, RULES, broken, defaulted, placed, schema
from bad_manifests import BAD, BASES

from shardwise.api import words
from shardwise.api.schema import Schema

SCHEMA = schema()
Rule = dict[str, str]


def nodes(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema with its path: fields, entries of lists as `[]`, values of mappings as `.*`."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}.*")


NODES = dict(nodes(SCHEMA))
WITH_RULES = [path for path, node in NODES.items() if RULES in node]
WITH_DEFAULT = [path for path, node in NODES.items() if "default" in node]


def rules(node: Schema) -> list[Rule]:
    return [rule for rule in node.get(RULES, ()) if "oldSelf" not in rule["rule"]]


def wrong_defaults(node: Schema) -> list[str]:
    """What a server finds wrong with the default of a field, as it stands."""
    found = []
    for path, value, below in placed(node["default"], node):
        for rule in rules(below):
            try:
                if broken(rule, value):
                    found.append(f"{path}: {rule['message']}")
            except CEL_ERRORS as error:
                found.append(f"{path}: {error}")
    return found


@pytest.mark.parametrize("path", WITH_DEFAULT)
def test_a_default_holds_to_every_rule_as_it_stands(path: str) -> None:
    node = NODES[path]
    assert wrong_defaults(node) == []
    plain = {key: value for key, value in node.items() if key != "anyOf"}
    jsonschema.validate(node["default"], plain)


def test_a_default_that_a_server_would_refuse_is_found() -> None:
    """What the CRD was refused for: `{}` for spec.workers, and rules that take its fields for
    granted."""
    node = copy.deepcopy(NODES["spec.workers"])
    node["default"] = {}
    assert wrong_defaults(node) == []  # Every rule is guarded.
    node[RULES] = [{"rule": "self.min <= self.replicas", "message": "unguarded"}]
    (told,) = wrong_defaults(node)
    assert "min" in told or "replicas" in told
    node["default"] = {"min": 2, "replicas": 1}
    assert wrong_defaults(node) == [": unguarded"]


# A value for a field: what is valid, what is next to a bound, what is plainly wrong.

TEXTS = ["", "a", "A b", "0.5", "1", "2", "1e400", "a.b:c", "Auto", "s3://b/c", "a/b", "x" * 70]
TEXTS += ["trainer.epochs", "ü"]


def candidates(node: Schema) -> Iterator[Any]:
    if "enum" in node:
        yield from node["enum"]
    elif "x-kubernetes-int-or-string" in node:
        yield from (-(2**60), 0, 1, 2**60, *TEXTS)
    elif node["type"] == "integer":
        low, high = node["minimum"], node["maximum"]
        yield from (low - 1, low, high, high + 1)
    elif node["type"] == "string":
        yield from TEXTS
    elif node["type"] == "array":
        yield from ([], *([item] for item in candidates(node["items"])))
    elif isinstance(node.get("additionalProperties"), dict):
        item = next(candidates(node["additionalProperties"]))
        yield from ({}, {"a": item}, {"a b": item}, {"0": item})


def whole(node: Schema, choose: random.Random) -> Any:
    """An object with every field that the schema has."""
    if "properties" in node:
        return {name: whole(child, choose) for name, child in node["properties"].items()}
    if node.get("type") == "array" and "properties" in node["items"]:
        return [whole(node["items"], choose) for _ in range(2)]
    found = list(candidates(node)) or [{}]
    return choose.choice(found)


def without(value: Any, node: Schema, choose: random.Random, often: float) -> Any:
    """The object with each of its optional fields left out so often."""
    if isinstance(value, list):
        return [without(item, node["items"], choose, often) for item in value]
    if not isinstance(value, dict) or "properties" not in node:
        return value
    return {
        name: without(item, node["properties"][name], choose, often)
        for name, item in value.items()
        # Metadata is not of the schema's making: every object has it.
        if name in (*node.get("required", ()), "metadata") or choose.random() >= often
    }


def failures(node: Schema, tries: int = 300) -> list[str]:
    """Rules of a node whose evaluation ends in an error for an object of its schema."""
    choose, found = random.Random(1), []
    programs = [(rule["rule"], cel.compile(rule["rule"])) for rule in rules(node)]
    for attempt in range(tries):
        often = (0.0, 1.0, 0.2, 0.5, 0.8)[attempt % 5]
        value = without(whole(node, choose), node, choose, often)
        for expression, program in programs:
            try:
                program.execute({"self": value})
            except CEL_ERRORS as error:
                found.append(f"{expression}: {error}")
    return found


@pytest.mark.parametrize("path", WITH_RULES)
def test_no_rule_fails_for_want_of_a_field(path: str) -> None:
    assert failures(NODES[path]) == []


def test_a_rule_that_takes_a_field_for_granted_is_found() -> None:
    node = {**NODES["spec.workers"], RULES: [{"rule": "self.min <= 5", "message": "bare"}]}
    assert failures(node)


def test_every_rule_fires_and_lets_pass() -> None:
    """No rule is there for nothing: each refuses something that the tests know, and not all."""
    seen: dict[str, set[bool]] = {
        rule["rule"]: set() for node in NODES.values() for rule in rules(node)
    }
    manifests = [*BASES.values(), *(bad.manifest for bad in BAD)]
    values = [entry for found in manifests for entry in placed(defaulted(found, SCHEMA), SCHEMA)]
    values += [("", item, node) for node in NODES.values() for item in candidates(node)]
    choose = random.Random(2)
    for path in WITH_RULES:
        node = NODES[path]
        if "properties" in node and path:
            for attempt in range(200):
                value = without(whole(node, choose), node, choose, (0.0, 0.3, 0.6)[attempt % 3])
                values.append(("", value, node))
    for _, value, node in values:
        for rule in rules(node):
            if len(seen[rule["rule"]]) < 2 and _fits(value, node):
                seen[rule["rule"]].add(broken(rule, value))
    assert {rule: found for rule, found in seen.items() if found != {True, False}} == {}


def _fits(value: Any, node: Schema) -> bool:
    """A server evaluates no rule on a value of another type."""
    if "x-kubernetes-int-or-string" in node:
        return type(value) in (int, str)
    kinds = {"integer": int, "string": str, "array": list, "object": dict, "boolean": bool}
    if type(value) is not kinds[node["type"]]:
        return False
    if node["type"] == "object":
        children = node.get("properties", {})
        return set(node.get("required", ())) <= set(value) and all(
            _fits(item, children[name]) for name, item in value.items() if name in children
        )
    return node["type"] != "array" or all(_fits(item, node["items"]) for item in value)


def test_every_pattern_of_the_spec_has_its_words() -> None:
    """A bare regular expression is no answer."""
    for path, node in nodes(schema(with_cel=False)["properties"]["spec"]):
        if "pattern" in node:
            assert node["pattern"] in words.PATTERNS, path
    for path, node in nodes(SCHEMA["properties"]["spec"]):
        assert "pattern" not in node, path


@pytest.mark.parametrize("path", WITH_RULES)
def test_a_node_has_each_rule_once(path: str) -> None:
    """To a server-side apply, a node's rules go by their expression."""
    expressions = [rule["rule"] for rule in NODES[path][RULES]]
    assert len(set(expressions)) == len(expressions)
