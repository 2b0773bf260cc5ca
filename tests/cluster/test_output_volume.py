"""The files of a cluster job: the same as local mode's, on the volume that the job names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import assert_succeeded, job, wait_ended
from kubectl import Kubectl
from volumes import claim


@pytest.fixture
def volume(namespace: Kubectl, tmp_path: Path) -> Iterator[Path]:
    with claim(namespace, "output", tmp_path / "volume") as folder:
        yield folder


def test_the_files_are_on_the_output_volume(namespace: Kubectl, volume: Path) -> None:
    manifest = job("kept")
    manifest["spec"]["output"] = {"volume": {"persistentVolumeClaim": {"claimName": "output"}}}
    namespace.apply(manifest)
    found = wait_ended(namespace, "kept")
    assert_succeeded(found)
    folder = volume / "kept"
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "optimizer.safetensors",
        "result.json",
        "history.csv",
        "curve.png",
    }
    told = found["status"]["result"]
    weights = (folder / "weights.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == told["weightsSha256"]
    result = json.loads((folder / "result.json").read_text())
    assert result["weightsSha256"] == told["weightsSha256"]
    assert result["path"] == told["path"] == "/output/kept"
