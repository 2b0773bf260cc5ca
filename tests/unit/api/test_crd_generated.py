"""What is committed is what the types give, and Kubernetes' own schemas accept it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shardwise.api import crd

ROOT = Path(__file__).parents[3]
VERSIONS = ["1.34", "1.35", "1.36", "1.37"]


def test_the_committed_files_are_fresh() -> None:
    assert crd.stale(ROOT) == ""


def test_check_tells_a_stale_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--root", str(tmp_path)]) == 0
    assert crd.main(["--root", str(tmp_path), "--check"]) == 0
    path = tmp_path / "manifests/crd/optimizationjobs.yaml"
    path.write_text(path.read_text().replace("optjob", "oj"))
    assert crd.main(["--root", str(tmp_path), "--check"]) == 1
    told = capsys.readouterr()
    assert "+    - optjob" in told.out
    assert "python -m shardwise.api.crd" in told.err


def test_check_tells_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--root", str(tmp_path), "--check"]) == 1
    assert "docs/reference/api.md" in capsys.readouterr().out


@pytest.mark.parametrize("name", crd.files())
def test_every_file_says_what_generated_it(name: str) -> None:
    first = crd.files()[name].splitlines()[0]
    assert "enerated by `python -m shardwise.api.crd`" in first


@pytest.mark.parametrize("cel", [True, False], ids=["with CEL", "without CEL"])
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_schema_accepts_it(version: str, cel: bool) -> None:
    kubernetes_validate.validate(crd.definition(cel=cel), version, strict=True)


# What a rule says in words, and what has no words of its own in a CRD.
SAID = {"x-kubernetes-validations", "pattern", "minLength", "minItems", "minProperties"}


def _without_rules(node: Any) -> Any:
    if isinstance(node, dict):
        said = SAID if node.get("type") else SAID | {"minimum", "maximum"}
        return {key: _without_rules(value) for key, value in node.items() if key not in said}
    return [_without_rules(item) for item in node] if isinstance(node, list) else node


def test_the_two_differ_in_the_rules_and_what_they_say_alone() -> None:
    with_cel, without_cel = crd.definition(cel=True), crd.definition(cel=False)
    assert "x-kubernetes-validations" not in yaml.safe_dump(without_cel)
    assert with_cel != without_cel
    assert _without_rules(with_cel) == _without_rules(without_cel)


def test_kubectl_can_apply_it() -> None:
    """It keeps the whole object in an annotation, and annotations end at 256 KiB."""
    for cel in (True, False):
        assert len(json.dumps(crd.definition(cel=cel), separators=(",", ":"))) < 200_000


def test_columns_and_paths_lead_to_fields() -> None:
    version = crd.definition(cel=True)["spec"]["versions"][0]
    paths = {column["jsonPath"] for column in version["additionalPrinterColumns"]}
    paths |= set(version["subresources"]["scale"].values())
    kinds = {}
    for path in paths - {".metadata.creationTimestamp"}:
        node = version["schema"]["openAPIV3Schema"]
        for name in path.strip(".").split("."):
            node = node["properties"][name]
        kinds[path] = node["type"]
    assert kinds[".status.progress.percent"] == "integer"
    assert kinds[".status.workers.selector"] == "string"
    assert kinds[".spec.workers.replicas"] == kinds[".status.workers.ready"] == "integer"
