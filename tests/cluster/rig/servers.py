"""Finds the servers of a Kubernetes for the rig: its five programs and etcd, in one folder.

    python tests/cluster/rig/servers.py        prints the folder; on stderr, which servers and why

In this order:
1. the folder `KUBEBUILDER_ASSETS`, where that is set: all five, of one version;
2. the official release that is pinned here, downloaded once per machine and checked by sha256;
3. Debian's v1.20, built from its source package, where nothing newer can be had.

`KUBE_LAB_SERVERS=release` or `=debian` asks for one of the last two. `KUBE_LAB_MIRROR` is a base
URL that has both download sites below it, as `release/...` and `etcd/...`.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import cache

RIG = Path(__file__).resolve().parent
PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
KUBERNETES_SITE = "https://dl.k8s.io/release"
ETCD_SITE = "https://github.com/etcd-io/etcd/releases/download"
CONNECT_SECONDS = 15
"""Without a network the answer is to come at once."""
BUILD_SECONDS = 3600
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Release:
    """Versions of the official release, and the sha256 of each file, for Linux on x86-64."""

    kubernetes: str
    etcd: str
    sha256: Mapping[str, str]
    """By the part's name; that of `etcd` is its archive's."""


PINNED = Release(
    kubernetes="v1.37.1",
    etcd="v3.6.14",
    sha256={
        "kube-apiserver": "de9b1b43c10143f448408b3aaf15f44fd5248b97a56301417a1fe2f1fc47a691",
        "kube-controller-manager": (
            "acd67c8f8871d4594f307d2816bf11aa972f47617ee6e1f84b0ce92a091f7290"
        ),
        "kube-scheduler": "8d10dfc64de70b1670cc1ce52701eb6a219c0905a95bdde608edc5432f9eca43",
        "kubelet": "cee008c1640c3b41820ef31d35b3cffc132b0c4b78c288be2b8022ebc7aa8293",
        "kube-proxy": "3f1dc2394bfe627927c17e8226b1a94c842529217c06436ddfeb73de8407b6e0",
        "etcd": "ffe840ff9295808e88cce2794a18a5ac87f12a5203c8314d0bf6aa119b41bac5",
    },
)


class UnavailableError(Exception):
    """The release cannot be had here."""


class ChecksumError(Exception):
    """A file is not the one that is pinned. Nothing else is tried in its place."""


def missing(folder: Path) -> list[str]:
    """The parts that the folder lacks."""
    return [part for part in PARTS if not os.access(folder / part, os.X_OK)]


def download(release: Release, environment: Mapping[str, str], into: Path) -> Path:
    """The folder of the release's servers; downloads them on the first call on a machine.

    Args:
        into: the folder that holds one folder for each version.

    Raises:
        UnavailableError: there is none for this machine, or its site cannot be reached.
        ChecksumError: what came is not what is pinned.
    """
    machine = f"{platform.system()} on {platform.machine()}"
    if machine != "Linux on x86_64":
        raise UnavailableError(f"no release is pinned for {machine}")
    folder = into / f"{release.kubernetes}-etcd-{release.etcd}"
    if folder.is_dir():
        return folder
    mirror = environment.get("KUBE_LAB_MIRROR", "").rstrip("/")
    site = f"{mirror}/release" if mirror else KUBERNETES_SITE
    archives = f"{mirror}/etcd" if mirror else ETCD_SITE
    into.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole: an interrupted download leaves no half a folder.
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        complete = Path(scratch, "complete")
        complete.mkdir()
        for part in PARTS:
            url = f"{site}/{release.kubernetes}/bin/linux/amd64/{part}"
            _fetch(url, release.sha256[part], complete / part)
        name = f"etcd-{release.etcd}-linux-amd64"
        archive = Path(scratch, "etcd.tar.gz")
        _fetch(f"{archives}/{release.etcd}/{name}.tar.gz", release.sha256["etcd"], archive)
        _unpack(archive, f"{name}/etcd", complete / "etcd")
        for file in complete.iterdir():
            file.chmod(0o755)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # Another process may have been as quick.
                raise
    return folder


def _fetch(url: str, sha256: str, to: Path) -> None:
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer, to.open("wb") as file:
            while data := answer.read(CHUNK):
                digest.update(data)
                file.write(data)
            expected = answer.headers.get("Content-Length")
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"{url}: {error}") from error
    if expected is not None and to.stat().st_size != int(expected):
        raise UnavailableError(f"{url}: ended after {to.stat().st_size} of {expected} bytes")
    if digest.hexdigest() != sha256:
        raise ChecksumError(
            f"{url} has the sha256 {digest.hexdigest()}, and {sha256} is pinned in {__file__}: "
            "what came is not the official release"
        )


def _unpack(archive: Path, member: str, to: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as package:
        content = package.extractfile(member)
        if content is None:
            raise ChecksumError(f"{archive.name} has no file {member}")
        with to.open("wb") as file:
            shutil.copyfileobj(content, file)


def debian() -> Path:
    """The folder of Debian's v1.20; builds it on the first call on a machine."""
    done = subprocess.run(
        [str(RIG / "build-kubernetes")], stdout=subprocess.PIPE, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode:
        raise UnavailableError("Debian's v1.20 was not built; see above")
    return Path(done.stdout.strip())


def servers(environment: Mapping[str, str], release: Release = PINNED) -> tuple[Path, str]:
    """The folder, and why it is this one.

    Raises:
        UnavailableError: those that were asked for cannot be had.
        ChecksumError: a download is not what is pinned.
        ValueError: KUBE_LAB_SERVERS is neither of its two words.
    """
    asked = environment.get("KUBE_LAB_SERVERS", "")
    if asked not in ("", "release", "debian"):
        raise ValueError(f"KUBE_LAB_SERVERS is {asked!r}: set it to release or debian, or unset it")
    assets = environment.get("KUBEBUILDER_ASSETS", "")
    reason = "asked for by KUBE_LAB_SERVERS"
    if assets and not asked:
        lacking = missing(Path(assets))
        if not lacking:
            return Path(assets), "KUBEBUILDER_ASSETS"
        raise UnavailableError(
            f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(lacking)}: name a folder with "
            f"{', '.join(PARTS)} of one version, or unset it"
        )
    if asked != "debian":
        try:
            folder = download(release, environment, cache() / "kubernetes")
        except UnavailableError as error:
            if asked:
                raise
            reason = f"the release {release.kubernetes} cannot be had: {error}"
        else:
            return folder, f"the official release {release.kubernetes}"
    return debian(), f"Debian's v1.20 ({reason})"


def main() -> None:
    try:
        folder, why = servers(os.environ)
    except (UnavailableError, ChecksumError, ValueError) as error:
        sys.exit(f"servers: {error}")
    print(f"servers: {why}", file=sys.stderr)
    print(folder)


if __name__ == "__main__":
    main()
