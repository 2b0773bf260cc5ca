"""Training and compression from one `kubectl apply`: the files of local mode, and their table."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from jobs import (
    KIND,
    Job,
    assert_succeeded,
    condition,
    example,
    local_result,
    state,
    wait_ended,
    wait_job,
)
from kubectl import Kubectl, wait_until, watched
from volumes import claim

NAME = "compress-digits"
ROWS = ["trained", "prune", "distill", "gptq"]
STAGES = [*ROWS, "export"]
PROGRESS = "{.status.state} {.status.progress.percent} {.status.progress.stage}"
SECONDS = 600
CHANGES = ({"guard": {"maxAccuracyDrop": "0.5"}}, None)


def hashes(artifacts: list[dict[str, Any]]) -> dict[str, str]:
    return {item["name"]: item["sha256"] for item in artifacts}


def test_a_model_is_trained_and_compressed_to_the_bytes_of_local_mode(
    namespace: Kubectl, tmp_path: Path
) -> None:
    manifest = example(NAME)
    manifest["spec"]["output"] = {"volume": {"persistentVolumeClaim": {"claimName": "results"}}}
    with claim(namespace, "results", tmp_path / "volume") as folder:
        namespace.apply(manifest)
        with watched(namespace, PROGRESS, KIND, NAME) as seen:
            found = wait_ended(namespace, NAME, SECONDS)
            assert_succeeded(found)
            wait_until("the watch has its end", lambda: any("Succeeded" in it for it in seen()))
            lines = [line.split(maxsplit=2)[1:] for line in seen() if "compression: " in line]
        # A stage that takes no time may be over before the operator looks; the export takes some.
        assert lines and lines[-1][1] == "compression: export"
        assert {percent for percent, _ in lines} == {"99"}
        order = [stage.partition(": ")[2] for _, stage in lines]
        assert order == sorted(order, key=STAGES.index)
        status = found["status"]

        local = local_result(manifest, tmp_path / "local", workers=1)
        assert status["result"]["weightsSha256"] == local["weightsSha256"]
        assert hashes(status["artifacts"]) == hashes(local["artifacts"])
        assert [row["name"] for row in status["compression"]["rows"]] == ROWS
        for told, row in zip(
            status["compression"]["rows"], local["compression"]["rows"], strict=True
        ):
            assert told["metric"] == f"accuracy {row['metrics']['accuracy']:.4f}"
            for figure in ("bytes", "parameters", "nonzeros", "macs"):
                assert told[figure] == row[figure]

        for item in status["artifacts"]:
            data = (folder / NAME / item["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == item["sha256"]
            assert len(data) == item["bytes"]

    text = namespace.run("describe", "optjob", NAME).stdout
    assert all(word in text for word in ("Artifacts:", "Compression:", "model.onnx", *ROWS))


def test_the_guard_fails_the_job_with_its_figures(namespace: Kubectl) -> None:
    namespace.apply(example("compress-guard"))
    found = wait_ended(namespace, "compress-guard", SECONDS)
    assert found["status"]["state"] == "Failed"
    message = condition(found, "Failed")["message"]
    assert "step prune brought accuracy from 0.9" in message
    assert "spec.compression.guard.maxAccuracyDrop 0.02" in message


def test_a_compression_cannot_be_changed(namespace: Kubectl) -> None:
    """A server with CEL refuses the change. Elsewhere the operator says that it does nothing."""
    manifest = example(NAME)
    manifest["spec"]["trainer"]["epochs"] = 100_000
    manifest["spec"]["workers"]["replicas"] = 1
    namespace.apply(manifest)
    started = wait_job(namespace, NAME, "it trains", lambda found: state(found) == "Running")
    pods = {pod["metadata"]["uid"] for pod in namespace.pods(NAME)}

    def patch(compression: Any) -> subprocess.CompletedProcess[str]:
        text = json.dumps({"spec": {"compression": compression}})
        return namespace.run("patch", "optjob", NAME, "--type=merge", "-p", text, check=False)

    for change in CHANGES:
        done = patch(change)
        if done.returncode:
            assert "spec.compression cannot be changed" in done.stderr
            continue
        told = wait_job(namespace, NAME, "it is told of", lambda found: not accepted(found))
        assert condition(told, "Accepted")["reason"] == "ImmutableFieldChanged"
        message = condition(told, "Accepted")["message"]
        assert message.startswith("spec.compression: was changed after the start")
        assert "undo the change, or delete the job and apply it anew" in message
        assert state(told) == "Running"
        assert told["status"]["specSha256"] == started["status"]["specSha256"]
        assert not patch(manifest["spec"]["compression"]).returncode
        wait_job(namespace, NAME, "the change is undone", accepted)
    assert {pod["metadata"]["uid"] for pod in namespace.pods(NAME)} == pods


def accepted(found: Job) -> bool:
    return condition(found, "Accepted").get("status") == "True"
