"""manifests/ follows from the chart, and installs everything with `kubectl apply -k`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from tools import tool

ROOT = Path(__file__).resolve().parents[2]


def test_the_manifests_are_as_generated() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "manifests" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_kustomize_builds_all_that_is_needed() -> None:
    done = subprocess.run(
        [str(tool("kubectl")), "kustomize", str(ROOT / "manifests")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    objects = list(yaml.safe_load_all(done.stdout))
    kinds = [item["kind"] for item in objects]
    assert kinds.count("Service") == 2
    for kind in ("Namespace", "CustomResourceDefinition", "Deployment"):
        assert kinds.count(kind) == 1
    for item in objects:
        assert "helm" not in yaml.safe_dump(item).lower()
        if item["kind"] != "CustomResourceDefinition":
            kubernetes_validate.validate(item, "1.34", strict=True)
        if "namespace" in item["metadata"]:
            assert item["metadata"]["namespace"] == "shardwise-system"
