"""The types read what Kubernetes hands out, and write what it takes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from shardwise.api import conditions
from shardwise.api.compression import Compression, CompressionStep
from shardwise.api.types import (
    API_VERSION,
    GROUP,
    VERSION,
    Condition,
    LastFailure,
    ObjectMeta,
    OptimizationJobStatus,
    Trainer,
    Workers,
    split_trainer,
    trainer_sha256,
)
from shardwise.api.validation import validate


def trainer(**changes: Any) -> Trainer:
    content = {"entrypoint": "a.b:c", "epochs": 1, "batchSize": 8, "shards": 4, **changes}
    return Trainer.model_validate(content)


def manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "OptimizationJob",
        "metadata": {"name": "digits"},
        "spec": {"trainer": trainer().to_json(), **spec},
    }


def test_names_fit_together() -> None:
    assert f"{GROUP}/{VERSION}" == API_VERSION


def test_defaults_are_filled_in() -> None:
    job = validate(manifest())
    assert job.spec.workers == Workers(replicas=1, min=1, max=None)
    assert job.spec.workers.most == 1
    assert job.key == "default/digits"
    assert job.trainer_json() == {
        "entrypoint": "a.b:c",
        "parameters": {},
        "epochs": 1,
        "batchSize": 8,
        "shards": 4,
        "seed": 0,
        "evaluateEveryEpochs": 1,
        "partition": "none",
        "threads": 1,
    }


def test_most_workers_is_max_when_given() -> None:
    assert Workers(replicas=2, max=4).most == 4


def test_what_is_written_reads_back_the_same() -> None:
    job = validate(manifest(workers={"replicas": 2, "max": 3}, output={"volume": {"emptyDir": {}}}))
    assert validate(job.to_json()) == job


def test_read_only_views_are_read() -> None:
    content = manifest(template={"spec": MappingProxyType({"containers": ({"name": "trainer"},)})})
    content["spec"] = MappingProxyType(content["spec"])
    job = validate(MappingProxyType(content))
    assert job.spec.template is not None
    assert job.spec.template.spec == {"containers": [{"name": "trainer"}]}


def test_the_api_servers_own_metadata_is_passed_over() -> None:
    content = manifest()
    content["metadata"] |= {
        "namespace": "ns",
        "uid": "u",
        "generation": 3,
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "managedFields": [{"manager": "kubectl"}],
        "resourceVersion": "12",
    }
    job = validate(content)
    assert job.key == "ns/digits"
    assert job.metadata.generation == 3
    assert job.metadata.creation_timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_status_of_another_version_does_not_make_a_job_invalid() -> None:
    assert validate({**manifest(), "status": {"state": "Levitating"}}).status is None
    read = OptimizationJobStatus.model_validate({"state": "Running", "newField": 1})
    assert read.to_json() == {"state": "Running"}


def test_times_are_whole_seconds_in_utc() -> None:
    berlin = timezone(timedelta(hours=1))
    status = OptimizationJobStatus(start_time=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=berlin))
    assert status.to_json() == {"startTime": "2026-01-02T02:04:05Z"}
    assert OptimizationJobStatus.model_validate(status.to_json()) == status


def test_long_texts_in_status_are_cut_not_refused() -> None:
    failure = LastFailure(message="a" * 5000, log_tail="start" + "x" * 5000 + "end")
    assert failure.message == "a" * 1023 + "…"
    assert failure.log_tail is not None
    assert len(failure.log_tail) == 4096
    assert failure.log_tail.endswith("xend")


def test_a_condition_carries_constants() -> None:
    condition = Condition(
        type=conditions.SUCCEEDED,
        status="True",
        last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
        reason=conditions.COMPLETED,
        message="done",
    )
    assert condition.to_json()["lastTransitionTime"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("words", [conditions.TYPES, conditions.REASONS])
def test_condition_words_are_all_listed_once(words: tuple[str, ...]) -> None:
    assert len(set(words)) == len(words)
    public = {value for name, value in vars(conditions).items() if name.isupper()}
    public -= {conditions.TYPES, conditions.REASONS}
    assert public == {*conditions.TYPES, *conditions.REASONS}


def test_the_trainers_hash_ignores_order_and_spelled_out_defaults() -> None:
    plain = trainer(parameters={"a": 1, "b": "2"})
    assert trainer_sha256(plain) == trainer_sha256(trainer(parameters={"b": "2", "a": 1}, seed=0))


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"parameters": {"a": 1}}, {"batchSize": 16}, {"image": "x"}]
)
def test_the_trainers_hash_tells_a_change(changes: dict[str, Any]) -> None:
    assert trainer_sha256(trainer(**changes)) != trainer_sha256(trainer())


def test_an_integer_and_its_text_are_different_parameters() -> None:
    assert trainer_sha256(trainer(parameters={"a": 1})) != trainer_sha256(
        trainer(parameters={"a": "1"})
    )


def test_what_the_result_follows_from_has_the_compression_beside_the_trainer() -> None:
    steps = {"steps": [{"name": "int8", "quantize": {}}]}
    with_it, without = validate(manifest(compression=steps)), validate(manifest())
    assert split_trainer(without.trainer_json()) == (without.spec.trainer.to_json(), None, None)
    found, compression, tasks = split_trainer(with_it.trainer_json())
    assert tasks is None
    assert found == without.trainer_json()
    assert with_it.spec.compression is not None
    assert compression == with_it.spec.compression.to_json()
    assert compression["calibration"] == {"samples": 1024, "batchSize": 64}


def test_the_hash_covers_the_compression() -> None:
    steps = [CompressionStep(name=name) for name in ("prune", "int8")]
    hashes = {
        trainer_sha256(trainer()),
        trainer_sha256(trainer(), Compression(steps=steps)),
        trainer_sha256(trainer(), Compression(steps=steps[:1])),
        trainer_sha256(trainer(seed=1), Compression(steps=steps)),
    }
    assert len(hashes) == 4
    text = json.dumps(trainer().to_json(), sort_keys=True, separators=(",", ":"))
    assert trainer_sha256(trainer()) == hashlib.sha256(text.encode()).hexdigest(), "as ever"


def test_objects_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ObjectMeta(name="a").name = "b"  # type: ignore[misc]


def test_importing_the_types_brings_no_heavy_package() -> None:
    code = (
        "import sys, shardwise.api.validation\n"
        "bad = {'torch', 'numpy', 'kopf', 'kubernetes', 'yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(bad) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
