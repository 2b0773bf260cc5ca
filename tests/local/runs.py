"""Runs of `shardwise run`, each made once a session, as a user would make them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "manifests" / "examples"
RUN_TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Run:
    """A finished command, and the folder it wrote into."""

    code: int
    stdout: str
    stderr: str
    output: Path

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.output / "result.json").read_text())

    @property
    def hashes(self) -> tuple[str, str]:
        return self.result["weightsSha256"], self.result["optimizerSha256"]


def command(manifest: Path, output: Path, *arguments: str) -> list[str]:
    program = [sys.executable, "-m", "shardwise.cli.main", "run", str(manifest)]
    return [*program, "--output", str(output), *arguments]


def run(manifest: Path, output: Path, *arguments: str, cwd: Path | None = None) -> Run:
    done = subprocess.run(
        command(manifest, output, *arguments),
        cwd=cwd or output.parent,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr, output)


def write_manifest(path: Path, trainer: dict[str, Any], **workers: int) -> Path:
    job = {
        "apiVersion": "shardwise.dev/v1alpha1",
        "kind": "OptimizationJob",
        "metadata": {"name": path.stem},
        "spec": {"trainer": trainer, "workers": workers or {"replicas": 2}},
    }
    path.write_text(yaml.safe_dump(job))
    return path
