"""Volumes that are full, closed, read-only or gone: real ones wherever the machine allows it."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from states import IDENTITY, Group, everything, same, state

from shardwise.checkpoint import Checkpointer, CheckpointError, Report, newest
from shardwise.checkpoint.files import Objects, open_files

ROOM = "give the volume more room"
NOBODY = 65534


class Volume:
    """A volume that can be filled up.

    A small tmpfs where one may be mounted (by root). Elsewhere a limit on the size of this
    process's files does for it: there, too, it is the kernel that refuses to write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounted = _mount(root, "-o", "size=128k")
        self._limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(self) -> None:
        """Leave room for less than a checkpoint."""
        if self._mounted:
            free = shutil.disk_usage(self.root).free
            (self.root / "filler").write_bytes(bytes(free - 36 * 1024))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self._limit[1]))

    def make_room(self) -> None:
        (self.root / "filler").unlink(missing_ok=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)

    def close(self) -> None:
        self.make_room()
        signal.signal(signal.SIGXFSZ, self._handler)
        if self._mounted:
            subprocess.run(["umount", str(self.root)], check=True, timeout=30)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    yield volume
    volume.close()


def _mount(target: Path, *options: str) -> bool:
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(target)]
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


def test_a_full_disk(volume: Volume) -> None:
    volume.fill()
    group = Group.at(volume.root, 2, keep=1)
    for step in (10, 20, 30):
        group.save(step)
    assert not group.committed
    mine = [error for error in group.errors if "rank 1 cannot write its part" in error]
    assert len(mine) >= 3
    assert all(
        ("No space left on device" in each and ROOM in each) or "File too large" in each
        for each in mine
    )
    assert newest(str(volume.root), IDENTITY) is None
    left = [path for path in everything(volume.root) if ".safetensors" in path.name]
    assert len(left) <= 1, "half-written parts are removed, and what failed is no burden"
    volume.make_room()
    group.save(40)
    assert group.committed == [40]
    assert same(newest(str(volume.root), IDENTITY), state(40))
    assert len(list(volume.root.iterdir())) == 1


def test_a_full_disk_keeps_the_old_one(volume: Volume) -> None:
    group = Group.at(volume.root, 1, keep=1)
    group.save(10)
    volume.fill()
    for step in (20, 30):
        group.save(step)
        assert same(newest(str(volume.root), IDENTITY), state(10))
    assert group.committed == [10]
    volume.make_room()
    group.save(40)
    assert group.committed == [10, 40]
    assert same(newest(str(volume.root), IDENTITY), state(40))
    assert len(list(volume.root.iterdir())) == 1


@contextmanager
def without_rights(root: Path) -> Iterator[None]:
    """This thread may not write to the directory, as root neither."""
    mode = root.stat().st_mode
    root.chmod(0o555)
    try:
        if os.geteuid() != 0:
            yield
            return
        libc = ctypes.CDLL(None)
        libc.setfsuid(NOBODY)  # of this thread alone; takes root's rights over files with it
        try:
            with pytest.raises(PermissionError):
                (root / "probe").touch()
            yield
        finally:
            libc.setfsuid(0)
    finally:
        root.chmod(mode)


def test_permission_lost(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    group = Group.at(root, 2)
    group.save(10)
    _open_to_all(tmp_path)
    with without_rights(root):
        group.save(20)
        assert same(newest(str(root), IDENTITY), state(10))
    assert group.committed == [10]
    assert len(group.errors) == 2
    assert all("Permission denied" in each and "group 65532" in each for each in group.errors)
    group.save(30)
    assert group.committed == [10, 30]


def _open_to_all(path: Path) -> None:
    """pytest's directories are closed to all but their owner: let others pass through."""
    while path != Path("/tmp") and path != Path("/"):
        path.chmod(path.stat().st_mode | 0o055)
        path = path.parent


def test_a_read_only_volume(tmp_path: Path) -> None:
    if not _mount(tmp_path):
        # Read-only by rights, where there is no mounting: another error, the same course.
        with without_rights(tmp_path):
            group = Group.at(tmp_path, 1)
            group.save(10)
        assert "Permission denied" in group.errors[0]
        return
    try:
        group = Group.at(tmp_path, 1)
        group.save(10)
        remount = ["mount", "-o", "remount,ro", str(tmp_path)]
        subprocess.run(remount, check=True, timeout=30)
        group.save(20)
        (error,) = group.errors
        assert "Read-only file system" in error
        assert "mount the volume read-write" in error
        assert same(newest(str(tmp_path), IDENTITY), state(10))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=30)


def test_a_directory_that_goes_is_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    group = Group.at(root, 2)
    group.save(10)
    shutil.rmtree(root)
    group.save(20)
    assert group.committed == [10, 20]
    assert same(newest(str(root), IDENTITY), state(20))


def test_a_directory_that_goes_while_it_is_written(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    group = Group.at(root, 2)
    group.write(10, 0)
    shutil.rmtree(root)
    assert group.savers[0].waiting
    group.write(10, 1)
    group.savers[0].poll()
    assert group.committed == [], "rank 0's part is gone"
    group.save(20)
    assert group.committed == [20]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    root.write_text("not a directory")
    group = Group.at(root, 1)
    group.save(10)
    (error,) = group.errors
    assert "name a directory in spec.checkpoint" in error


class Refusing(MemoryFileSystem):  # type: ignore[misc]
    """A store whose client raises, as they do, whatever it likes."""

    protocol = "refusing"
    cachable = False
    failing = ""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb" and self.failing and self.failing in path:
            raise RuntimeError("403 Forbidden")
        return super()._open(path, mode, **options)


@pytest.mark.parametrize("failing", ["part-00000-", "part-00001-", "part-00001.json", "manifest"])
def test_a_store_that_refuses(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    url = f"refusing://bucket/{failing}"
    group = Group([open_files(url) for _ in range(2)])
    group.save(10)
    monkeypatch.setattr(Refusing, "failing", failing)
    group.save(20)
    assert group.committed == [10]
    assert "RuntimeError: 403 Forbidden" in group.errors[0]
    assert "the URL's credentials" in group.errors[0] or "spec.checkpoint" in group.errors[0]
    assert same(newest(url, IDENTITY), state(10))
    monkeypatch.setattr(Refusing, "failing", "")
    group.save(30)
    assert same(newest(url, IDENTITY), state(30))


def test_half_an_upload_is_not_completed() -> None:
    files = Objects("memory://half")

    def chunks() -> Iterator[bytes]:
        yield b"data"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.put("part", chunks())
    assert files.entries("") == {}


def test_a_protocol_without_its_package_says_what_to_install() -> None:
    with pytest.raises(CheckpointError, match=r"Protocol not known: nonsense.* such as s3fs"):
        newest("nonsense://bucket", IDENTITY)
    reports: list[Report] = []
    saver = Checkpointer("nonsense://b", identity="x", keep=1, on_report=reports.append)
    assert saver.save(state(10), rank=0, size=1, generation=1)
    assert saver.wait(30)
    saver.close()
    (report,) = reports
    assert report.error.startswith("checkpoint of step 10: cannot open nonsense://b: Protocol")
    assert report.error.endswith("such as s3fs for s3://; training goes on without it")
