"""Where the cluster tests' rig has its servers from; the release's site is a local HTTP server."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

RIG = Path(__file__).resolve().parents[1] / "cluster" / "rig"
sys.path.insert(0, str(RIG))

import servers as rig  # noqa: E402

PROGRAM = b"#!/bin/sh\necho %s\n"


@dataclass
class Site:
    """What it serves, and what was asked of it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    short: set[str] = field(default_factory=set)
    """Files that break off half way."""
    asked: list[str] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        return {"KUBE_LAB_MIRROR": self.url + "/", **more}


def archive(member: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as package:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        package.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            content = found.files.get(self.path)
            self.send_response(404 if content is None else 200)
            content = content or b""
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = self.path in found.short
            self.wfile.write(content[: len(content) // 2] if half else content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield found
        server.shutdown()


@pytest.fixture
def release(site: Site) -> rig.Release:
    """A release that the site has whole."""
    sha256 = {}
    for part in rig.PARTS:
        content = PROGRAM % part.encode()
        site.files[f"/release/v9.9.9/bin/linux/amd64/{part}"] = content
        sha256[part] = hashlib.sha256(content).hexdigest()
    packed = archive("etcd-v8.8.8-linux-amd64/etcd", PROGRAM % b"etcd")
    site.files["/etcd/v8.8.8/etcd-v8.8.8-linux-amd64.tar.gz"] = packed
    sha256["etcd"] = hashlib.sha256(packed).hexdigest()
    return rig.Release(kubernetes="v9.9.9", etcd="v8.8.8", sha256=sha256)


@pytest.fixture(autouse=True)
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache is the test's own, and Debian's v1.20 is taken for built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "debian"
    monkeypatch.setattr(rig, "debian", lambda: folder)
    monkeypatch.setattr(rig.platform, "system", lambda: "Linux")
    monkeypatch.setattr(rig.platform, "machine", lambda: "x86_64")
    return folder


def assets(folder: Path, *parts: str) -> Path:
    folder.mkdir()
    for part in parts:
        (folder / part).touch(mode=0o755)
    return folder


def left(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache" / "shardwise" / "kubernetes").iterdir()]


def test_the_release_is_downloaded_once(site: Site, release: rig.Release, tmp_path: Path) -> None:
    folder, why = rig.servers(site.environment(), release)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*rig.PARTS, "etcd"])
    for part in (*rig.PARTS, "etcd"):
        assert (folder / part).read_bytes() == PROGRAM % part.encode()
        assert os.access(folder / part, os.X_OK)
    assert why == "the official release v9.9.9"
    assert left(tmp_path) == [folder.name]
    asked = len(site.asked)
    assert rig.servers(site.environment(), release)[0] == folder
    assert len(site.asked) == asked == len(rig.PARTS) + 1


@pytest.mark.parametrize("part", ["kube-apiserver", "kube-proxy", "etcd"])
def test_another_file_than_the_pinned_one_is_refused_and_nothing_taken_in_its_place(
    site: Site, release: rig.Release, tmp_path: Path, part: str
) -> None:
    forged = replace(release, sha256={**release.sha256, part: "0" * 64})
    with pytest.raises(
        rig.ChecksumError, match=rf"{part}.* has the sha256 .* {'0' * 64} is pinned"
    ):
        rig.servers(site.environment(), forged)
    assert left(tmp_path) == []


def test_a_download_that_breaks_off_leaves_nothing_and_is_made_anew(
    site: Site, release: rig.Release, tmp_path: Path, debian: Path
) -> None:
    site.short.add("/release/v9.9.9/bin/linux/amd64/kubelet")
    folder, why = rig.servers(site.environment(), release)
    assert folder == debian
    assert "kubelet" in why and "v1.20" in why
    assert left(tmp_path) == []
    site.short.clear()
    folder, _ = rig.servers(site.environment(), release)
    assert (folder / "kubelet").exists()


def test_where_the_site_does_not_have_it_debians_is_taken_and_why_is_told(
    site: Site, release: rig.Release, debian: Path
) -> None:
    del site.files["/release/v9.9.9/bin/linux/amd64/kube-scheduler"]
    folder, why = rig.servers(site.environment(), release)
    assert folder == debian
    assert "Debian's v1.20" in why and "kube-scheduler: HTTP Error 404" in why


def test_where_no_site_can_be_reached_debians_is_taken(release: rig.Release, debian: Path) -> None:
    folder, why = rig.servers({"KUBE_LAB_MIRROR": "http://127.0.0.1:1"}, release)
    assert folder == debian
    assert "Connection refused" in why
    with pytest.raises(rig.UnavailableError, match="Connection refused"):
        rig.servers(
            {"KUBE_LAB_MIRROR": "http://127.0.0.1:1", "KUBE_LAB_SERVERS": "release"}, release
        )


def test_on_another_architecture_debians_is_taken(
    site: Site, release: rig.Release, debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.platform, "machine", lambda: "aarch64")
    folder, why = rig.servers(site.environment(), release)
    assert folder == debian
    assert "no release is pinned for Linux on aarch64" in why
    assert site.asked == []


def test_a_folder_that_is_named_comes_first(
    site: Site, release: rig.Release, tmp_path: Path, debian: Path
) -> None:
    named = assets(tmp_path / "assets", *rig.PARTS)
    environment = site.environment(KUBEBUILDER_ASSETS=str(named))
    assert rig.servers(environment, release) == (named, "KUBEBUILDER_ASSETS")
    assert site.asked == []
    folder, why = rig.servers({**environment, "KUBE_LAB_SERVERS": "debian"}, release)
    assert (folder, why) == (debian, "Debian's v1.20 (asked for by KUBE_LAB_SERVERS)")


def test_a_named_folder_without_all_programs_is_refused_by_name(
    site: Site, release: rig.Release, tmp_path: Path
) -> None:
    named = assets(tmp_path / "assets", "kube-apiserver", "etcd", "kubectl")
    with pytest.raises(rig.UnavailableError, match=r"KUBEBUILDER_ASSETS=.* lacks .*kubelet.*unset"):
        rig.servers(site.environment(KUBEBUILDER_ASSETS=str(named)), release)


def test_another_word_in_its_place_is_refused(release: rig.Release) -> None:
    with pytest.raises(ValueError, match=r"KUBE_LAB_SERVERS is 'newest'.*release or debian"):
        rig.servers({"KUBE_LAB_SERVERS": "newest"}, release)


def test_what_is_pinned_is_whole() -> None:
    assert rig.PINNED.sha256.keys() == {*rig.PARTS, "etcd"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in rig.PINNED.sha256.values())
    assert len(set(rig.PINNED.sha256.values())) == len(rig.PINNED.sha256)
