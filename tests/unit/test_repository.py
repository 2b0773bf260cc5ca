"""Properties of the repository itself that no single module can hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import shardwise
from shardwise.api.types import KIND
from shardwise.api.validation import validate

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_shadows_the_standard_librarys_operator():
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("operator/__init__.py"))


@pytest.mark.parametrize("module", ["shardwise", "shardwise.cli.main", "shardwise.coordinator"])
def test_the_command_line_starts_without_torch(module):
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert loaded.isdisjoint({"torch", "numpy", "kopf", "kubernetes", "matplotlib"})


def test_every_public_name_can_be_had():
    assert {getattr(shardwise, name) is not None for name in shardwise.__all__} == {True}
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = shardwise.absent


def test_kopf_is_imported_by_the_wiring_alone():
    users = [
        path.name
        for path in (ROOT / "operator").rglob("*.py")
        if re.search(r"^\s*(import|from) kopf\b", path.read_text(), re.MULTILINE)
    ]
    assert sorted(users) == ["__main__.py", "guarded.py", "handlers.py"]


def test_the_lock_pins_every_version_and_names_no_mirror():
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in pins)
    assert "torch==2.13.0" in pins


@pytest.mark.parametrize(
    "path", sorted((ROOT / "manifests" / "examples").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_example_manifests_are_valid(path):
    documents = list(yaml.safe_load_all(path.read_text()))
    claims = {item["metadata"]["name"] for item in documents if item["kind"] != KIND}
    (manifest,) = (item for item in documents if item["kind"] == KIND)
    job = validate(manifest)
    assert job.metadata.name == path.stem
    volumes = [place.volume for place in (job.spec.output, job.spec.checkpoint) if place]
    used = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if volume}
    assert claims <= used, "what comes with a job is for it"


def test_versions_agree():
    chart = yaml.safe_load((ROOT / "charts" / "shardwise" / "Chart.yaml").read_text())
    text = (ROOT / "pyproject.toml").read_text()
    assert chart["appVersion"] == shardwise.__version__
    assert f'version = "{shardwise.__version__}"' in text
