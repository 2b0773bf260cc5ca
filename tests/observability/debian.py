"""Finds real `prometheus` and `promtool`: on the PATH, or inside Debian's own package of both."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tools import cache

PACKAGE = "prometheus"
DOWNLOAD_SECONDS = 300


def program(name: str) -> Path:
    """The path of `prometheus` or `promtool`; unpacks the package on a machine's first call.

    Nothing is installed: the package's service would scrape this machine.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    path = cache() / "tools" / PACKAGE / "usr" / "bin" / name
    if not path.exists():
        _unpack(cache() / "tools" / PACKAGE)
    return path


def _unpack(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        if not _download(scratch):
            # A fresh machine has no lists of packages yet.
            _run("apt-get", "-qq", "update", cwd=scratch).check_returncode()
            if not _download(scratch):
                raise FileNotFoundError(
                    f"apt-get has no package {PACKAGE}; install prometheus and promtool by hand"
                )
        (package,) = scratch.glob("*.deb")
        _run("dpkg-deb", "-x", str(package), "unpacked", cwd=scratch).check_returncode()
        if not folder.exists():
            # Moved there whole: no other process sees half of it.
            (scratch / "unpacked").rename(folder)


def _download(folder: Path) -> bool:
    done = _run("apt-get", "-qq", "download", PACKAGE, cwd=folder)
    return done.returncode == 0 and any(folder.glob("*.deb"))


def _run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
    )
