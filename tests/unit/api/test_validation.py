"""Bad manifests: each error names the field, what is wrong with its value, and the remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import refusals

from shardwise.api import conditions
from shardwise.api.types import API_VERSION, KIND
from shardwise.api.validation import InvalidJob, validate

GOOD: dict[str, Any] = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {"name": "digits"},
    "spec": {
        "trainer": {
            "entrypoint": "shardwise.examples.digits:task",
            "parameters": {"hidden": 128, "learningRate": "0.05"},
            "epochs": 20,
            "batchSize": 256,
            "shards": 8,
            "seed": 7,
        },
        "workers": {"replicas": 4, "min": 1, "max": 8},
    },
}
ABSENT = "<absent>"
ROOT = Path(__file__).parents[3]

# path, value, what the message must say
BAD: list[tuple[str, Any, list[str]]] = [
    ("spec.workers.replicas", 9, ["9 is more than spec.workers.max (8)", "raise max"]),
    ("spec.trainer.shards", 3, ["4 is more than spec.trainer.shards (3)", "raise shards"]),
    ("spec.workers.max", 9, ["9 is more than spec.trainer.shards (8)", "lower max"]),
    ("spec.workers.min", 5, ["5 is more than spec.workers.replicas (4)", "lower min"]),
    ("spec.trainer.batchSize", 4, ["8 is more than spec.trainer.batchSize (4)", "raise batchSize"]),
    ("spec.trainer.steps", 3, ["20 is given beside spec.trainer.steps (3)", "remove"]),
    ("spec.trainer.epochs", ABSENT, ["epochs: is missing", "add spec.trainer.epochs or"]),
    ("metadata.name", "x" * 60, ["has 60 characters, more than 52", "shorter name"]),
    ("metadata.name", "4workers", ["'4workers' is not a lowercase letter", "rename"]),
    ("metadata.name", "a.b", ["'a.b'", "rename"]),
    ("metadata.name", ABSENT, ["metadata.name: is missing", "give the job a name"]),
    ("spec.trainer.shards", 0, ["0 is less than 1", "give 1 or more"]),
    ("spec.trainer.shards", 1025, ["1025 is more than 1024", "give 1024 or less"]),
    ("spec.trainer.shards", "8", ["'8' is a string, not an integer", "without quotes: 8"]),
    ("spec.trainer.shards", 2.5, ["2.5 is a fraction, not an integer", "give an integer"]),
    ("spec.trainer.shards", True, ["True is a boolean, not an integer"]),
    ("spec.trainer.shards", ABSENT, ["shards: is missing", "add shards: the number of parts"]),
    ("spec.trainer.seed", -1, ["-1 is less than 0"]),
    ("spec.trainer.partition", "theta", ["'theta' is not 'none' or 'parameters'", "write 'none'"]),
    ("spec.trainer.entrypoint", "digits", ["'digits' is not of the form module:function"]),
    ("spec.trainer.entrypoint", "a:b:c", ["write module:function, for example"]),
    ("spec.trainer.entrypoint", 5, ["5 is an integer, not a string", "module:function"]),
    ("spec.trainer.image", "a b", ["'a b' is not an image's name", "without spaces"]),
    ("spec.trainer.codeFrom", {"configMap": "A_b"}, ["configMap: 'A_b'", "an object's name"]),
    (
        "spec.trainer.codeFrom",
        {"secret": "a"},
        ["'secret' is not a field of spec.trainer"],
    ),
    ("spec.trainer.parameters.lr", 0.05, ["0.05 is a fraction", 'in quotes: lr: "0.05"']),
    ("spec.trainer.parameters.lr", True, ["true is a boolean", 'in quotes: lr: "true"']),
    ("spec.trainer.parameters.lr", [1], ["[1] is not an integer or a string"]),
    ("spec.trainer.parameters.lr", 2**60, ["beyond 2**53 - 1", "in quotes"]),
    ("spec.trainer.parameters.lr", "x" * 1025, ["longer than 1024 characters", "into the code"]),
    ("spec.trainer.parameters.l-r", 1, ["'l-r' cannot be the name of an argument", "underscores"]),
    ("spec.trainer.parameters", [], ["[] is a list, not a mapping"]),
    ("spec.trainer.shard", 4, ["'shard' is not a field of spec.trainer", "did you mean 'shards'?"]),
    ("spec.replicas", 4, ["'replicas' is not a field of spec", "move it to spec.workers.replicas"]),
    ("spec.gpus", {}, ["'gpus' is not a field of spec", "remove it; the fields here"]),
    ("spec.checkpoint", {"url": "s3://b"}, ["everySteps: is missing", "everySeconds: 300"]),
    ("spec.checkpoint", {"everySteps": 5}, ["volume: is missing", "add volume or url"]),
    (
        "spec.checkpoint",
        {"everySteps": 5, "everySeconds": 5, "url": "s3://b"},
        ["everySteps: is given beside spec.checkpoint.everySeconds", "remove"],
    ),
    (
        "spec.checkpoint",
        {"everySteps": 5, "volume": {"emptyDir": {}}, "url": "s3://b"},
        ["volume: is given beside spec.checkpoint.url", "remove"],
    ),
    ("spec.checkpoint", {"everySteps": 5, "url": "/data"}, ["scheme://place", "s3://bucket"]),
    ("spec.checkpoint", {"everySteps": 5, "volume": {}}, ["fewer than 1", "exactly one volume"]),
    ("spec.checkpoint", {"everySteps": 5, "url": "s3://b", "keep": 0}, ["keep: 0 is less than 1"]),
    ("spec.workers.standby", 1021, ["1021 and spec.workers.replicas (4) are more than 1024"]),
    ("spec.workers.standby", -1, ["-1 is less than 0"]),
    ("spec.workers.detectionMilliseconds", 50, ["50 is less than 100"]),
    ("spec.suspend", "yes", ["'yes' is a string, not a boolean", "give a boolean"]),
    ("spec.managedBy", "kueue", ["'kueue' is not of the form domain/name", "with a domain"]),
    ("spec.stallTimeoutSeconds", 5, ["5 is less than 10"]),
    ("spec.ttlSecondsAfterFinished", -1, ["-1 is less than 0"]),
    ("spec.restartPolicy", {"maxRestarts": 101}, ["101 is more than 100"]),
    ("spec.restartPolicy", "Never", ["'Never' is a string, not a mapping"]),
    ("spec.cleanPodPolicy", "all", ["'all' is not 'None', 'Running' or 'All'"]),
    ("sepc", {}, ["'sepc' is not a field of an OptimizationJob", "did you mean 'spec'?"]),
    ("spec.startupDeadlineSeconds", -5, ["-5 is less than 1"]),
    ("spec.activeDeadlineSeconds", "1h", ["'1h' is a string, not an integer", "give an integer"]),
    ("spec.output", {"volume": {}}, ["{} has fewer than 1 entries", "exactly one volume source"]),
    ("spec.output", {"volume": {"a": {}, "b": {}}}, ["more than 1", "exactly one volume source"]),
    ("spec.output", {}, ["spec.output.volume: is missing", "exactly one volume source"]),
    ("spec.template", {"metadata": {"labels": {"a": 1}}}, ["labels.a: 1", 'in quotes: "1"']),
    ("spec.template", {"metadata": {"labels": {1: "a"}}}, ["1 is not a string", "in quotes"]),
    ("spec.template", {"spec": 3}, ["spec.template.spec: 3 is an integer, not a mapping"]),
    ("spec.trainer", None, ["spec.trainer: is missing", "add trainer"]),
    ("spec.gpus", None, ["'gpus' is not a field of spec"]),
    ("apiVersion", "v1", ["'v1' is not 'shardwise.dev/v1alpha1'", "write apiVersion:"]),
    ("kind", "Job", ["'Job' is not 'OptimizationJob'", "write kind: OptimizationJob"]),
    ("spec", ABSENT, ["spec: is missing", "add spec"]),
]


def changed(path: str, value: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    node = manifest
    for name in parents:
        node = node.setdefault(name, {})
    if value is ABSENT:
        del node[last]
    else:
        node[last] = value
    return manifest


def test_the_good_one_is_good() -> None:
    job = validate(GOOD)
    assert job.spec.trainer.parameters == {"hidden": 128, "learningRate": "0.05"}
    assert refusals(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "fragments"), BAD, ids=[f"{path}={value!r:.20}" for path, value, _ in BAD]
)
def test_bad_manifest(path: str, value: Any, fragments: list[str]) -> None:
    with pytest.raises(InvalidJob) as caught:
        validate(changed(path, value))
    message = str(caught.value)
    assert [part for part in fragments if part not in message] == []
    for error in caught.value.errors:
        assert error.field
        assert error.problem
        assert error.remedy
        assert str(error) == f"{error.field}: {error.problem}; {error.remedy}"
        assert "\n" not in str(error)


# What an API server without CEL does not refuse by the schema: rules across fields (the operator
# says them in a condition) and the keys of mappings.
BEYOND_THE_SCHEMA = (
    " is more than spec.",
    " is given beside ",
    " are more than 1024",
    "everySteps: is missing",
    "volume: is missing",
    "add spec.trainer.epochs or",
    "cannot be the name of an argument",
    "1 is not a string",
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (path, value)
        for path, value, fragments in BAD
        if path not in ("apiVersion", "kind")
        and not path.startswith("metadata")
        and not any(words in " ".join(fragments) for words in BEYOND_THE_SCHEMA)
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_the_api_server_refuses_it_too(path: str, value: Any) -> None:
    manifest = changed(path, value)
    assert refusals(manifest, with_cel=False)


def test_all_errors_are_told_at_once() -> None:
    manifest = changed("spec.trainer.shards", 0)
    manifest["spec"]["trainer"]["epoch"] = 3
    manifest["spec"]["workers"]["replicas"] = "four"
    with pytest.raises(InvalidJob) as caught:
        validate(manifest)
    found = {error.field: error.value for error in caught.value.errors}
    assert found == {
        "spec.trainer.shards": 0,
        "spec.trainer.epoch": 3,
        "spec.workers.replicas": "four",
    }
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("metadata.name", "x" * 60, conditions.NAME_TOO_LONG),
        ("spec.trainer.shards", 0, conditions.INVALID_SPEC),
        ("spec.workers.min", 5, conditions.INVALID_SPEC),
    ],
)
def test_the_reason_of_the_condition(path: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        validate(changed(path, value))
    assert caught.value.reason == reason


def test_a_list_is_no_manifest() -> None:
    with pytest.raises(InvalidJob, match="manifest: is not a mapping"):
        validate([])  # type: ignore[arg-type]


def test_every_example_is_valid() -> None:
    for path in sorted((ROOT / "manifests/examples").rglob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if manifest and manifest.get("kind") == KIND:
                validate(manifest)


def test_a_blank_field_is_absent_as_to_an_api_server() -> None:
    manifest = changed("spec.workers", None)
    manifest["spec"]["checkpoint"] = None
    assert refusals(manifest) == []
    assert validate(manifest).spec.workers.replicas == 1


@pytest.mark.parametrize("depth", [65, 900, 100_000])
def test_a_manifest_that_is_nested_too_deeply_is_refused_by_field(depth):
    deep: object = 1
    for _ in range(depth):
        deep = {"a": deep}
    manifest = {"spec": {"trainer": {"parameters": deep}}}
    with pytest.raises(InvalidJob, match=r"spec\.trainer\.parameters\.a.*deeper than 64 levels"):
        validate(manifest)
    while isinstance(deep, dict):  # Python takes apart by recursion what is dropped as a whole.
        deep = deep.pop("a")
