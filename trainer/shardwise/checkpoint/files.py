"""The file systems that checkpoints are kept on, behind one small interface.

`Local` is for paths: every file is written aside, synced and renamed. `Objects` is for fsspec
URLs: an object store has no rename, but it shows an object only once it is complete.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from shardwise.regular import READING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Files(Protocol):
    """Files under one root. Paths are relative to it, with "/" between their steps.

    Every method raises OSError where the file system refuses, and nothing else.
    """

    root: str

    def make(self, directory: str) -> None:
        """Make a directory of the root, and the root; no error where it is there."""

    def put(self, path: str, chunks: Iterable[Buffer]) -> None:
        """Write a file, in place of any that is there. On return it is complete and durable.

        Where it fails, a local file is as it was before; an object may be gone.

        Raises:
            OSError: it could not be written. Any other error is the iterable's own.
        """

    def get(self, path: str, limit: int | None = None) -> bytearray:
        """All bytes of a regular file.

        Args:
            limit: bytes that it may have at most; None: any number.

        Raises:
            OSError: it cannot be read, is no regular file (a symlink included), or is larger.
        """

    def entries(self, directory: str) -> dict[str, int | None]:
        """The names of files and directories in a directory, with their bytes, None for a
        directory; {} where it is not. What is neither, symlinks included, is left out."""

    def remove(self, path: str) -> None:
        """Remove a file; no error where it is not there."""

    def remove_directory(self, directory: str) -> None:
        """Remove a directory if it is empty; no error where it is not there or not empty."""

    def sync(self, directory: str) -> None:
        """Make durable what has been renamed in a directory, by any process of this machine."""


def open_files(location: str) -> Files:
    """The files under a path or an fsspec URL, such as s3://bucket/folder.

    Raises:
        OSError: the URL's protocol is unknown or its package is not installed.
    """
    return Objects(location) if "://" in location else Local(location)


class System(Protocol):
    """The part of `os` that `Local` uses; tests put one in its place that fails."""

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int: ...
    def write(self, fd: int, data: Buffer, /) -> int: ...
    def readv(self, fd: int, buffers: list[memoryview], /) -> int: ...
    def fsync(self, fd: int, /) -> None: ...
    def fstat(self, fd: int, /) -> os.stat_result: ...
    def close(self, fd: int, /) -> None: ...
    def replace(self, source: str, target: str, /) -> None: ...
    def unlink(self, path: str, /) -> None: ...
    def mkdir(self, path: str, /) -> None: ...
    def rmdir(self, path: str, /) -> None: ...
    def scandir(self, path: str, /) -> Any: ...


class Local:
    """A directory of this machine or of a mounted volume."""

    def __init__(self, root: str, *, system: System = os) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100 - no Path: `system` stands in for os
        self._os = system

    def make(self, directory: str) -> None:
        for each in (*_missing_parents(self.root), self.root, self._path(directory)):
            try:
                self._os.mkdir(each)
            except FileExistsError:
                continue
            self._sync(each.rpartition("/")[0] or "/")
        self._sync(self.root)  # the directory may be another rank's, and not be durable yet

    def put(self, path: str, chunks: Iterable[Buffer]) -> None:
        target = self._path(path)
        folder, _, name = target.rpartition("/")
        # Its own name for each attempt: a process that comes back never shares one with a ghost.
        aside = f"{folder}/.{name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            file = self._os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                for chunk in chunks:
                    self._write(file, chunk)
                self._os.fsync(file)
            finally:
                self._os.close(file)
            self._os.replace(aside, target)
        except BaseException:
            with suppress(OSError):
                self._os.unlink(aside)
            raise
        self._sync(folder)

    def get(self, path: str, limit: int | None = None) -> bytearray:
        # No symlink is followed, and what is no file is neither waited for nor read.
        file = self._os.open(self._path(path), READING)
        try:
            told = self._os.fstat(file)
            if not stat.S_ISREG(told.st_mode):
                raise OSError(errno.EINVAL, "is no regular file", path)
            if limit is not None and told.st_size > limit:
                raise OSError(errno.EFBIG, f"has {told.st_size} bytes, more than {limit}", path)
            data = bytearray(told.st_size)
            view, done = memoryview(data), 0
            while done < len(data):
                count = self._os.readv(file, [view[done:]])
                if count == 0:
                    raise OSError(errno.EIO, "ends early: it was cut while it was read", path)
                done += count
            return data
        finally:
            self._os.close(file)

    def entries(self, directory: str) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        try:
            with self._os.scandir(self._path(directory)) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # removed since: not there
                        told = entry.stat(follow_symlinks=False)
                        if stat.S_ISDIR(told.st_mode):
                            found[entry.name] = None
                        elif stat.S_ISREG(told.st_mode):
                            found[entry.name] = told.st_size
        except FileNotFoundError:
            return {}
        return found

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._os.unlink(self._path(path))

    def remove_directory(self, directory: str) -> None:
        try:
            self._os.rmdir(self._path(directory))
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    def sync(self, directory: str) -> None:
        self._sync(self._path(directory))

    def _write(self, file: int, chunk: Buffer) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._os.write(file, rest) :]

    def _sync(self, folder: str) -> None:
        file = self._os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._os.fsync(file)
        finally:
            self._os.close(file)

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root


def _missing_parents(root: str) -> list[str]:
    """The parents of the root that are not there, the outermost first."""
    missing: list[str] = []
    parent = os.path.dirname(root)  # noqa: PTH120
    while not os.path.isdir(parent) and parent != "/":  # noqa: PTH112
        missing.insert(0, parent)
        parent = os.path.dirname(parent)  # noqa: PTH120
    return missing


class Objects:
    """A folder that fsspec can reach: s3://, gs://, abfs://, memory://, ..."""

    def __init__(self, url: str) -> None:
        # Loaded here: who keeps checkpoints on a volume need not wait for it.
        import fsspec

        self.root = url.rstrip("/")
        with _as_os_error(url):
            # Opened in the process that uses it: the async ones do not outlive a fork.
            try:
                self._system, path = fsspec.core.url_to_fs(self.root)
            except (ImportError, ValueError) as error:
                raise OSError(errno.EPROTONOSUPPORT, str(error), url) from error
        self._prefix = path.rstrip("/")

    def make(self, directory: str) -> None:
        # Object stores need no directories, and may deny the right to look for the bucket. Where
        # one is needed and cannot be made, `put` says so.
        with suppress(OSError), _as_os_error(self._path(directory)):
            self._system.makedirs(self._path(directory), exist_ok=True)

    def put(self, path: str, chunks: Iterable[Buffer]) -> None:
        target = self._path(path)
        with _as_os_error(target):
            file = self._system.open(target, "wb")
        try:
            for chunk in chunks:
                with _as_os_error(target):
                    file.write(chunk)
        except BaseException:
            # Not closed: that would complete the upload of half a file. What a file system that
            # writes in place left is removed.
            with suppress(OSError), _as_os_error(target):
                _discard(file)
                self.remove(path)
            raise
        with _as_os_error(target):
            file.close()

    def get(self, path: str, limit: int | None = None) -> bytearray:
        with _as_os_error(self._path(path)):
            if limit is None:
                return bytearray(self._system.cat_file(self._path(path)))
            # One byte more than there may be: it tells that there is more.
            data = bytearray(self._system.cat_file(self._path(path), start=0, end=limit + 1))
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"has more than {limit} bytes", path)
        return data

    def entries(self, directory: str) -> dict[str, int | None]:
        path = self._path(directory)
        with _as_os_error(path):
            self._system.invalidate_cache()  # other processes write here too
            try:
                found = self._system.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        return {
            each["name"].rstrip("/").rpartition("/")[2]: (
                None if each["type"] == "directory" else each["size"]
            )
            for each in found
            if each["name"].rstrip("/") != path  # some list the folder itself
        }

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError), _as_os_error(self._path(path)):
            self._system.rm_file(self._path(path))

    def remove_directory(self, directory: str) -> None:
        # Object stores have none; the others refuse where it is not empty.
        with suppress(OSError), _as_os_error(self._path(directory)):
            self._system.rmdir(self._path(directory))

    def sync(self, directory: str) -> None:
        pass  # what was put is there

    def _path(self, path: str) -> str:
        return f"{self._prefix}/{path}" if path else self._prefix


def _discard(file: Any) -> None:
    from fsspec.spec import AbstractBufferedFile

    if isinstance(file, AbstractBufferedFile):
        file.closed = True  # else it completes the upload when it is collected
        file.discard()
    else:
        file.close()


@contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    """Turn whatever a store's client raises into an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error
