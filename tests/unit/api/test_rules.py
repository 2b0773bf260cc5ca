"""The CEL rules and their Python predicates give the same answers."""

from __future__ import annotations

from typing import Any

import cel
import pytest
from api_server import defaulted
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwise.api.rules import CEL_RULES, NAME_PATTERN, RULES, Immutable, Rule
from shardwise.api.schema import fields, node_at, structural
from shardwise.api.spec import MAX_PODS
from shardwise.api.types import API_VERSION, KIND, MAX_NAME_LENGTH, OptimizationJob

SCHEMA = structural(cel=True)
small = st.integers(1, 6)
optional = st.none() | small
names = st.one_of(
    st.from_regex(NAME_PATTERN, fullmatch=True),
    st.text("aZ0-._\n", min_size=1, max_size=8),
    st.integers(MAX_NAME_LENGTH - 1, MAX_NAME_LENGTH + 1).map(lambda n: "a" * n),
)


managers = st.sampled_from([None, "shardwise.dev/operator", "kueue.x-k8s.io/multikueue"])


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


checkpoints = st.none() | st.builds(
    _given,
    everySteps=optional,
    everySeconds=optional,
    keep=optional,
    volume=st.none() | st.just({"emptyDir": {}}),
    url=st.none() | st.just("s3://bucket/jobs"),
)


steps = st.builds(
    _given,
    prune=st.none()
    | st.builds(
        _given,
        method=st.sampled_from([None, "Magnitude", "Taylor", "OBS"]),
        pattern=st.sampled_from([None, "Unstructured", "TwoOfFour", "Channels"]),
        sparsity=st.sampled_from([None, "0.5", "0.9"]),
        layers=st.sampled_from([None, [], [{"name": "0", "sparsity": "0.1"}]]),
        schedule=st.sampled_from([None, {"everySteps": 1}]),
    ),
    quantize=st.none()
    | st.builds(
        _given,
        method=st.sampled_from([None, "GPTQ"]),
        bits=st.sampled_from([None, 4, 8]),
        groupSize=st.sampled_from([None, 8]),
        activations=st.sampled_from([None, "Static", "Dynamic"]),
        ignore=st.sampled_from([None, ["0"]]),
    ),
    distill=st.none()
    | st.builds(
        _given,
        teacher=st.none()
        | st.builds(
            _given,
            entrypoint=st.sampled_from([None, "a:b"]),
            parameters=st.sampled_from([None, {}, {"width": 8}]),
            file=st.sampled_from([None, "w.safetensors"]),
        ),
    ),
    fineTune=st.none() | st.builds(_given, epochs=optional, steps=optional),
)
compressions = st.none() | st.lists(steps, min_size=1, max_size=3).map(
    lambda found: {"steps": [{"name": f"s{n}", **step} for n, step in enumerate(found)]}
)


numbers = {"values": [1, "2"]}
bounds = {"range": {"type": "Int", "min": 1, "max": "3"}}
parameters = st.lists(
    st.sampled_from([numbers, bounds, numbers | bounds, {}]), min_size=1, max_size=2
).map(lambda found: [{"name": f"p{index}", **kind} for index, kind in enumerate(found)])
sweeps = st.builds(
    _given,
    parameters=parameters,
    algorithm=st.none() | st.sampled_from(["Grid", "Random", "TPE", "NSGA2"]),
    earlyStopping=st.none()
    | st.lists(small, min_size=1, max_size=2).map(lambda rungs: {"rungs": rungs}),
)
tasks = st.builds(
    _given,
    list=st.none()
    | st.integers(1, 2).map(lambda count: [{"name": f"t{index}"} for index in range(count)]),
    sweep=st.none() | sweeps,
    objectives=st.none()
    | st.integers(0, 2).map(
        lambda count: [{"metric": f"m{n}", "direction": "Maximize"} for n in range(count)]
    ),
    maxTasks=st.none() | st.integers(1, 2),
    workersPerTask=st.none() | st.just("Auto") | small,
)


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    trainer = _given(
        entrypoint="a:b",
        epochs=draw(optional),
        steps=draw(optional),
        batchSize=draw(small),
        shards=draw(small),
    )
    workers = _given(
        replicas=draw(optional),
        min=draw(optional),
        max=draw(optional),
        standby=draw(st.none() | st.integers(MAX_PODS - 3, MAX_PODS)),
    )
    spec: dict[str, Any] = _given(
        trainer=trainer,
        compression=draw(compressions),
        tasks=draw(st.none() | tasks),
        checkpoint=draw(checkpoints),
        managedBy=draw(managers),
    )
    if workers or draw(st.booleans()):
        spec["workers"] = workers
    metadata = {"name": draw(names)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def value_at(manifest: Any, path: str) -> Any:
    """What stands at the path; None where nothing does."""
    for name in filter(None, path.split(".")):
        manifest = (manifest or {}).get(name)
    return manifest


def evaluate(rule: Rule, manifest: dict[str, Any]) -> bool:
    at = value_at(defaulted(manifest, SCHEMA), rule.at.removesuffix("[]"))
    # The API server does not look at the rules of an object that is absent.
    objects = [] if at is None else at if rule.at.endswith("[]") else [at]
    found = [cel.evaluate(rule.expression, {"self": item}) for item in objects]
    assert all(isinstance(holds, bool) for holds in found)
    return all(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message)
@settings(deadline=None)
@given(manifest=manifests())
def test_cel_and_python_agree(rule: Rule, manifest: dict[str, Any]) -> None:
    job = OptimizationJob.model_validate(manifest)
    assert evaluate(rule, manifest) is rule.holds(job)


@settings(deadline=None)
@given(manifest=manifests())
def test_defaults_of_the_schema_are_those_of_the_types(manifest: dict[str, Any]) -> None:
    job = OptimizationJob.model_validate(manifest)
    assert job.spec.to_json() == defaulted(manifest, SCHEMA)["spec"]


@pytest.mark.parametrize(
    "rule", [rule for rule in CEL_RULES if isinstance(rule, Immutable)], ids=lambda rule: rule.at
)
@settings(deadline=None)
@given(old=manifests(), new=manifests(), unchanged=st.booleans())
def test_what_is_immutable_is_so_in_both(
    rule: Immutable, old: dict[str, Any], new: dict[str, Any], unchanged: bool
) -> None:
    pair = (old if unchanged else new, old)
    after, before = (value_at(defaulted(manifest, SCHEMA), rule.at) for manifest in pair)
    from_cel = cel.evaluate(rule.expression, {"self": after, "oldSelf": before})
    jobs = [OptimizationJob.model_validate(manifest) for manifest in pair]
    assert from_cel is rule.same(*(job.spec for job in jobs))
    assert from_cel or not unchanged


def test_every_rule_is_in_the_schema_with_its_remedy() -> None:
    for rule in CEL_RULES:
        assert rule.remedy in rule.full_message
        for place in rule.places:
            node = node_at(SCHEMA, place)
            assert node["type"] == "object"
            (found,) = [
                found for found in node["x-kubernetes-validations"]
                if found["rule"] == rule.expression and found["message"] == rule.cel_message
            ]  # fmt: skip
            assert rule.remedy in found["message"]
            if "fieldPath" in found:
                assert node_at(node, found["fieldPath"].removeprefix("."))


def test_the_compression_of_a_listed_task_has_the_rules_of_the_jobs() -> None:
    paths = [path for path, _ in fields(SCHEMA) if path.startswith("spec.compression")]
    assert len(paths) > 50
    unlike = set()
    for path in [*paths, "spec.compression.steps[]"]:
        own, tasks = (
            {rule["message"] for rule in node_at(SCHEMA, at).get("x-kubernetes-validations", ())}
            for at in (path, path.replace("spec.", "spec.tasks.list[].", 1))
        )
        assert tasks <= own
        if own != tasks:
            unlike.add(path.removeprefix("spec.compression.steps[]."))
    # What the server reckons too costly; the operator tells of these.
    assert unlike == {"distill.teacher.parameters", "distill.student.parameters"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.message)
def test_every_rule_names_a_field_that_exists(rule: Rule) -> None:
    assert rule.field == "metadata.name" or node_at(SCHEMA, rule.field)
    assert rule.message.startswith(rule.field.rpartition(".")[0])
