"""What the chart's tests share: rendering it with the real helm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "shardwise"
sys.path.insert(0, str(ROOT / "tests" / "cluster" / "rig"))

from tools import tool  # noqa: E402

Render = Callable[..., list[dict[str, Any]]]


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(tool("helm")), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def hook(item: dict[str, Any]) -> bool:
    return "helm.sh/hook" in item["metadata"].get("annotations", {})


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_helm


@pytest.fixture(scope="session")
def render() -> Render:
    """The chart's objects with some values set, for one version of Kubernetes; or `helm test`'s."""

    def objects(
        *settings: str, kubernetes: str = "1.34.0", hooks: bool = False
    ) -> list[dict[str, Any]]:
        flags = [flag for setting in settings for flag in ("--set", setting)]
        done = run_helm(
            *("template", "shardwise", str(CHART), "--namespace", "shardwise-system"),
            *("--kube-version", kubernetes, *flags),
        )
        assert done.returncode == 0, done.stderr
        found = [item for item in yaml.safe_load_all(done.stdout) if item]
        return [item for item in found if hook(item) == hooks]

    return objects
