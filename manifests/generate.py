"""Writes what is derived from the chart: manifests/operator, manifests/kustomization.yaml, and the
table of values in the chart's README.

Run by `make generate`; `--check` changes nothing and fails where a file is not what it should be.
The CRD in manifests/crd comes from `python -m shardwise.api.crd`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "shardwise"
NAMESPACE = "shardwise-system"
HEAD = "# Generated from charts/shardwise by manifests/generate.py; do not edit.\n"
TABLE_MARK = "<!-- values: written by manifests/generate.py -->\n"
HELM_ONLY = ("helm.sh/chart", "app.kubernetes.io/managed-by")

sys.path.insert(0, str(ROOT / "tests" / "cluster" / "rig"))

from tools import tool  # noqa: E402


def rendered() -> list[dict[str, Any]]:
    """The chart's objects with its default values, without the CRD and without Helm's labels."""
    command = [str(tool("helm")), "template", "shardwise", str(CHART), "--namespace", NAMESPACE]
    text = subprocess.run(
        [*command, "--set", "crds.enabled=false"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    objects = [
        item
        for item in yaml.safe_load_all(text)
        if item and "helm.sh/hook" not in item["metadata"].get("annotations", {})
    ]
    for item in objects:
        labels = [item["metadata"]["labels"]]
        if "template" in item.get("spec", {}):
            labels.append(item["spec"]["template"]["metadata"]["labels"])
        for found in labels:
            for name in HELM_ONLY:
                found.pop(name, None)
    return objects


def dump(*objects: Any) -> str:
    return HEAD + yaml.safe_dump_all(objects, sort_keys=False, width=100)


def manifests() -> dict[Path, str]:
    """What each file under manifests/ is to hold."""
    objects = rendered()
    rbac = [item for item in objects if item["apiVersion"].startswith("rbac.")]
    rest = [item for item in objects if item not in rbac]
    # What the operator's pod keeps to, held by the cluster too.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": labels},
    }
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    folder = ROOT / "manifests"
    files = ["namespace.yaml", "rbac.yaml", "operator.yaml"]
    return {
        folder / "operator" / "namespace.yaml": dump(namespace),
        folder / "operator" / "rbac.yaml": dump(*rbac),
        folder / "operator" / "operator.yaml": dump(*rest),
        folder / "operator" / "kustomization.yaml": dump({**kustomization, "resources": files}),
        # Where the images come from: `kustomize edit set image shardwise-operator=...`; the
        # trainer's is the operator's SHARDWISE_TRAINER_IMAGE.
        folder / "kustomization.yaml": dump({**kustomization, "resources": ["crd", "operator"]}),
    }


def documented_values() -> Iterator[tuple[str, str, str]]:
    """Each value's path, default and comment, from the `# --` lines of values.yaml."""
    path: list[str] = []
    comment = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if found := re.match(r"\s*# -- (.*)", line):
            comment = found[1]
            continue
        if not (found := re.match(r"( *)([A-Za-z]+):\s*(.*)", line)):
            continue
        depth = len(found[1]) // 2
        path = [*path[:depth], found[2]]
        if comment:
            default = found[3]
            if not default:
                value = yaml.safe_load((CHART / "values.yaml").read_text())
                for name in path:
                    value = value[name]
                default = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
            yield ".".join(path), default, comment
            comment = ""


def readme() -> str:
    text = (CHART / "README.md").read_text()
    head = text.split(TABLE_MARK)[0]
    rows = [
        f"| `{path}` | `{default}` | {comment} |\n"
        for path, default, comment in documented_values()
    ]
    title = "| Value | Default | What it does |\n| --- | --- | --- |\n"
    return f"{head}{TABLE_MARK}\n{title}{''.join(rows)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail on a difference")
    check = parser.parse_args().check
    stale = []
    for path, text in {**manifests(), CHART / "README.md": readme()}.items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale and check:
        print("not as generated (run manifests/generate.py):", *stale, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
