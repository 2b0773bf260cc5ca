"""Training and compression from one `kubectl apply`: the files of local mode, and their table."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jobs import KIND, assert_succeeded, condition, example, local_result, wait_ended
from kubectl import Kubectl
from volumes import claim

ROWS = ["trained", "prune", "distill", "gptq"]
SECONDS = 600


def hashes(artifacts: list[dict[str, Any]]) -> dict[str, str]:
    return {item["name"]: item["sha256"] for item in artifacts}


def test_a_model_is_trained_and_compressed_to_the_bytes_of_local_mode(
    namespace: Kubectl, tmp_path: Path
) -> None:
    manifest = example("compress-digits")
    manifest["spec"]["output"] = {"volume": {"persistentVolumeClaim": {"claimName": "results"}}}
    with claim(namespace, "results", tmp_path / "volume") as folder:
        namespace.apply(manifest)
        seen = namespace.wait_for(
            "the compression shows while it is under way",
            KIND,
            "compress-digits",
            lambda found: bool(found.get("status", {}).get("progress", {}).get("stage")),
            SECONDS,
        )
        assert seen["status"]["progress"]["stage"].startswith("compression: ")
        assert seen["status"]["progress"]["percent"] < 100
        found = wait_ended(namespace, "compress-digits", SECONDS)
        assert_succeeded(found)
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
            data = (folder / "compress-digits" / item["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == item["sha256"]
            assert len(data) == item["bytes"]

    text = namespace.run("describe", "optjob", "compress-digits").stdout
    assert all(word in text for word in ("Artifacts:", "Compression:", "model.onnx", *ROWS))


def test_the_guard_fails_the_job_with_its_figures(namespace: Kubectl) -> None:
    namespace.apply(example("compress-guard"))
    found = wait_ended(namespace, "compress-guard", SECONDS)
    assert found["status"]["state"] == "Failed"
    message = condition(found, "Failed")["message"]
    assert "step prune brought accuracy from 0.9" in message
    assert "spec.compression.guard.maxAccuracyDrop 0.02" in message


def test_a_compression_cannot_be_changed(namespace: Kubectl) -> None:
    manifest = example("compress-digits")
    manifest["spec"]["suspend"] = True
    namespace.apply(manifest)
    for change in ({"guard": {"maxAccuracyDrop": "0.5"}}, None):
        patch = json.dumps({"spec": {"compression": change}})
        command = ("patch", "optjob", "compress-digits", "--type=merge", "-p", patch)
        done = namespace.run(*command, check=False)
        assert done.returncode
        assert "spec.compression cannot be changed" in done.stderr
