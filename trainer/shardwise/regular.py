"""Reading what somebody else may have put into a folder: regular files alone, of bounded size.

A FIFO or a device in place of a file would block its reader for ever, and a symlink leads anywhere.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final

READING: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How a file is opened: never through a symlink, and without waiting for a pipe's other end."""
LARGEST_JSON: Final = 64 << 20
"""Bytes of a result: one of 10,000 tasks has about 20 MB."""


class UnsafeFileError(ValueError):
    """A file is not what a job writes: changed, cut, too large, or of another kind. The message
    names the file, what is wrong with it, and the remedy."""


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a regular file.

    Args:
        limit: bytes that it may have at most.

    Raises:
        UnsafeFileError: it is no regular file (a symlink included), or larger.
        OSError: it cannot be read.
    """
    with open_regular(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > limit:
            raise UnsafeFileError(
                f"{path}: has {size} bytes; no more than {limit} are read of such a file"
            )
        return opened.read(size)


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened to be read.

    Raises:
        UnsafeFileError: it is no regular file (a symlink included).
        OSError: it cannot be opened.
    """
    try:
        file = os.open(path, READING)
    except OSError as error:
        # ELOOP: a symlink. ENXIO: a socket, or a device without its hardware.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _not_regular(path)
    return os.fdopen(file, "rb")


def read_json(path: Path, limit: int = LARGEST_JSON) -> dict[str, Any]:
    """The JSON object in a regular file.

    Raises:
        UnsafeFileError: it is no regular file, too large, or holds no JSON object.
        OSError: it cannot be read.
    """
    try:
        found = json.loads(read_regular(path, limit))
    except UnsafeFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnsafeFileError(f"{path}: is no JSON: {error}; run the job again") from error
    if not isinstance(found, dict):
        raise UnsafeFileError(f"{path}: holds no JSON object; run the job again")
    return found


def _not_regular(path: Path) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path}: is no regular file but a link, a pipe, a device or a folder; copy the file itself"
    )
