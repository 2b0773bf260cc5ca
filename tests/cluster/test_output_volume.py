"""The files of a cluster job: the same as local mode's, on the volume that the job names."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from jobs import assert_succeeded, job, wait_ended
from kubectl import Kubectl

SIZE = "64Mi"


@pytest.fixture
def volume(namespace: Kubectl, tmp_path: Path):
    """A claim in the test's namespace, and the folder of this machine that is behind it.

    The rig's nodes are this machine. On another cluster a folder of the test's machine cannot be
    a node's, so the volume's content cannot be looked at from here.
    """
    if os.environ.get("KUBECONFIG"):
        pytest.skip("the volume is a folder of the rig's nodes, which are this machine")
    folder = tmp_path / "volume"
    folder.mkdir()
    folder.chmod(0o777)  # hostPath volumes take no fsGroup
    name = f"{namespace.namespace}-output"
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {**shared, "capacity": {"storage": SIZE}, "hostPath": {"path": str(folder)}},
        }
    )
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "output"},
            "spec": {
                **shared,
                "volumeName": name,
                "resources": {"requests": {"storage": SIZE}},
            },
        }
    )
    yield folder
    namespace.run("delete", "pv", name, "--wait=false")


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
