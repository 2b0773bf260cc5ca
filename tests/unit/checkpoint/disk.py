"""A disk in memory, with processes that are killed and power that fails.

`Process` stands in for `os` in `Local`. A disk remembers of each file and directory both what
processes see and what would be left by a power cut: what was synced, and of the rest any part.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class KilledError(BaseException):
    """What a killed process does: nothing, ever again. No `except Exception` catches it."""


@dataclass
class File:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


@dataclass
class Directory:
    entries: dict[str, File | Directory] = field(default_factory=dict)
    durable: dict[str, File | Directory] = field(default_factory=dict)


class Disk:
    def __init__(self) -> None:
        self.root = Directory()

    def find(self, path: str) -> File | Directory:
        node: File | Directory = self.root
        for step in path.strip("/").split("/"):
            if not step:
                continue
            if not isinstance(node, Directory) or step not in node.entries:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            node = node.entries[step]
        return node

    def parent(self, path: str) -> tuple[Directory, str]:
        folder, _, name = path.rpartition("/")
        node = self.find(folder)
        assert isinstance(node, Directory)
        return node, name

    def cut_power(self, chance: random.Random) -> None:
        """Forget what was not synced, or not: each name and each file for itself."""
        self._cut(self.root, chance)

    def _cut(self, folder: Directory, chance: random.Random) -> None:
        for name in sorted(folder.entries.keys() | folder.durable.keys()):
            now, then = folder.entries.get(name), folder.durable.get(name)
            left = now if now is then else chance.choice((now, then))
            if left is None:
                folder.entries.pop(name, None)
            else:
                folder.entries[name] = left
        folder.durable = dict(folder.entries)
        for node in folder.entries.values():
            if isinstance(node, Directory):
                self._cut(node, chance)
            elif bytes(node.data) != node.durable:
                length = chance.randint(0, len(node.data))
                node.data = bytearray(chance.choice((node.data[:length], node.durable)))
                node.durable = bytes(node.data)


class Process:
    """`os` for one process on a disk: killed after some operations, or failing in one.

    Args:
        kill_at: the number of operations, counted from 0, before which it is killed.
        fail_at: the number of the operation that fails with `error`.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        kill_at: int | None = None,
        fail_at: int | None = None,
        error: int = errno.EIO,
    ) -> None:
        self.disk, self.kill_at, self.fail_at, self.error = disk, kill_at, fail_at, error
        self.done = 0
        self.killed = False
        self._open: dict[int, tuple[File | Directory, int]] = {}

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int:
        self._operation(path)
        if flags & os.O_CREAT:
            folder, name = self.disk.parent(path)
            if name in folder.entries:
                raise FileExistsError(errno.EEXIST, "File exists", path)
            folder.entries[name] = File()
        number = len(self._open) + 1000
        self._open[number] = (self.disk.find(path), 0)
        return number

    def write(self, fd: int, data: Any, /) -> int:
        self._operation()
        file, _ = self._open[fd]
        assert isinstance(file, File)
        count = min(len(data), 5000)  # short writes happen
        file.data += data[:count]
        return count

    def readv(self, fd: int, buffers: list[memoryview], /) -> int:
        self._operation()
        file, place = self._open[fd]
        assert isinstance(file, File)
        count = min(len(buffers[0]), len(file.data) - place)
        buffers[0][:count] = file.data[place : place + count]
        self._open[fd] = (file, place + count)
        return count

    def fsync(self, fd: int, /) -> None:
        self._operation()
        node, _ = self._open[fd]
        if isinstance(node, File):
            node.durable = bytes(node.data)
        else:
            node.durable = dict(node.entries)

    def fstat(self, fd: int, /) -> Any:
        self._operation()
        file, _ = self._open[fd]
        assert isinstance(file, File)
        return SimpleNamespace(st_size=len(file.data), st_mode=stat.S_IFREG)

    def close(self, fd: int, /) -> None:
        self._alive()
        self._open[fd] = (File(), 0)  # numbers are not used again: a late use shows

    def replace(self, source: str, target: str, /) -> None:
        self._operation(source)
        folder, old = self.disk.parent(source)
        other, new = self.disk.parent(target)
        if old not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", source)
        other.entries[new] = folder.entries.pop(old)

    def unlink(self, path: str, /) -> None:
        self._operation(path)
        self.disk.find(path)
        folder, name = self.disk.parent(path)
        del folder.entries[name]

    def mkdir(self, path: str, /) -> None:
        self._operation(path)
        folder, name = self.disk.parent(path)
        if name in folder.entries:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        folder.entries[name] = Directory()

    def rmdir(self, path: str, /) -> None:
        self._operation(path)
        node = self.disk.find(path)
        assert isinstance(node, Directory)
        if node.entries:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        folder, name = self.disk.parent(path)
        del folder.entries[name]

    @contextmanager
    def scandir(self, path: str, /) -> Iterator[Iterator[Any]]:
        self._operation(path)
        node = self.disk.find(path)
        assert isinstance(node, Directory)
        yield iter([_entry(name, each) for name, each in node.entries.items()])

    def _alive(self) -> None:
        if self.killed:
            raise KilledError

    def _operation(self, path: str | None = None) -> None:
        self._alive()
        number, self.done = self.done, self.done + 1
        if number == self.kill_at:
            self.killed = True
            raise KilledError
        if number == self.fail_at:
            raise OSError(self.error, os.strerror(self.error), path)


def _entry(name: str, node: File | Directory) -> Any:
    size = len(node.data) if isinstance(node, File) else 0
    mode = stat.S_IFREG if isinstance(node, File) else stat.S_IFDIR
    return SimpleNamespace(
        name=name, stat=lambda *, follow_symlinks: SimpleNamespace(st_size=size, st_mode=mode)
    )
