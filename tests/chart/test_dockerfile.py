"""The Dockerfile by its text: hadolint's rules, and what both images promise."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def stage(name: str) -> str:
    (body,) = re.findall(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return body


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None, "hadolint is not installed: make setup"
    done = subprocess.run(
        [hadolint, str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["operator", "trainer"])
def test_images_run_as_nobody_by_an_exec_entrypoint(target: str) -> None:
    body = stage(target)
    assert "USER 65532:65532" in body
    assert re.search(r'^ENTRYPOINT \["python", "-m", "[a-z_.]+"\]$', body, re.MULTILINE)


@pytest.mark.parametrize("target", ["operator", "trainer"])
def test_dependencies_and_sources_are_layers_of_their_own(target: str) -> None:
    dependencies, body = stage(f"build-{target}"), stage(target)
    assert re.search(rf'"\.\[{target}[],]', dependencies)
    assert "--constraint requirements/lock.txt" in dependencies
    assert "COPY trainer" not in dependencies
    assert "COPY trainer" in stage("build-source")
    assert body.index(f"--from=build-{target} ") < body.index("--from=build-source ")


def test_nothing_is_fetched_by_a_moving_name() -> None:
    assert ":latest" not in TEXT
    assert not re.search(r"^ADD ", TEXT, re.MULTILINE)


def test_the_build_context_is_an_allow_list() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    assert next(line for line in lines if not line.startswith("#")) == "*"


def test_the_lock_names_every_requirement_and_no_place() -> None:
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert not [line for line in pins if "//" in line or line.startswith("-")]
    names = {re.split("[=<>]", line)[0].lower().replace("_", "-") for line in pins}
    wanted = {"kopf", "kubernetes", "pydantic", "torch", "numpy", "cryptography", "click"}
    assert wanted <= names
