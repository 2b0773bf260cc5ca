"""The CEL rules and their Python predicates give the same answers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwise.api.rules import CEL_RULES, NAME_PATTERN, RULES, TRAINER_IMMUTABLE, Rule
from shardwise.api.schema import Schema, fields, node_at, structural
from shardwise.api.types import API_VERSION, KIND, MAX_NAME_LENGTH, OptimizationJob

SCHEMA = structural(cel=True)
small = st.integers(1, 6)
optional = st.none() | small
names = st.one_of(
    st.from_regex(NAME_PATTERN, fullmatch=True),
    st.text("aZ0-._\n", min_size=1, max_size=8),
    st.integers(MAX_NAME_LENGTH - 1, MAX_NAME_LENGTH + 1).map(lambda n: "a" * n),
)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    trainer = _given(
        entrypoint="a:b",
        epochs=draw(optional),
        steps=draw(optional),
        batchSize=draw(small),
        shards=draw(small),
    )
    workers = _given(replicas=draw(optional), min=draw(optional), max=draw(optional))
    spec: dict[str, Any] = {"trainer": trainer}
    if workers or draw(st.booleans()):
        spec["workers"] = workers
    metadata = {"name": draw(names)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def defaulted(value: Any, schema: Schema) -> Any:
    """What the API server makes of an object before it evaluates rules."""
    if not isinstance(value, Mapping) or "properties" not in schema:
        return value
    value = dict(value)
    for name, child in schema["properties"].items():
        if name not in value and "default" in child:
            value[name] = copy.deepcopy(child["default"])
        if name in value:
            value[name] = defaulted(value[name], child)
    return value


def value_at(manifest: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        manifest = manifest[name]
    return manifest


def evaluate(rule: Rule, manifest: dict[str, Any]) -> Any:
    return cel.evaluate(rule.expression, {"self": value_at(defaulted(manifest, SCHEMA), rule.at)})


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message)
@given(manifest=manifests())
def test_cel_and_python_agree(rule: Rule, manifest: dict[str, Any]) -> None:
    job = OptimizationJob.model_validate(manifest)
    assert evaluate(rule, manifest) is rule.holds(job)


@given(manifest=manifests())
def test_defaults_of_the_schema_are_those_of_the_types(manifest: dict[str, Any]) -> None:
    job = OptimizationJob.model_validate(manifest)
    assert job.spec.to_json() == defaulted(manifest, SCHEMA)["spec"]


@given(old=manifests(), new=manifests(), unchanged=st.booleans())
def test_trainer_is_immutable_in_both(
    old: dict[str, Any], new: dict[str, Any], unchanged: bool
) -> None:
    pair = (old if unchanged else new, old)
    after, before = (defaulted(manifest, SCHEMA)["spec"]["trainer"] for manifest in pair)
    from_cel = cel.evaluate(TRAINER_IMMUTABLE.expression, {"self": after, "oldSelf": before})
    jobs = [OptimizationJob.model_validate(manifest) for manifest in pair]
    assert from_cel is TRAINER_IMMUTABLE.same(*(job.spec.trainer for job in jobs))
    assert from_cel or not unchanged


def test_every_rule_is_in_the_schema_with_its_remedy() -> None:
    nodes = [SCHEMA, *(node for _, node in fields(SCHEMA))]
    attached = [rule for node in nodes for rule in node.get("x-kubernetes-validations", ())]
    assert sorted(rule["message"] for rule in attached) == sorted(
        rule.full_message for rule in CEL_RULES
    )
    for rule in CEL_RULES:
        assert rule.remedy in rule.full_message
        assert node_at(SCHEMA, rule.at)["type"] == "object"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message)
def test_every_rule_names_a_field_that_exists(rule: Rule) -> None:
    assert rule.field == "metadata.name" or node_at(SCHEMA, rule.field)
    assert rule.message.startswith(rule.field.rpartition(".")[0])
