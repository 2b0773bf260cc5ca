"""This process's open sockets, for faults that strike all of them."""

from __future__ import annotations

import contextlib
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")

Key = tuple[int, str]
"""A descriptor and the socket behind it: descriptors are used again, sockets' inodes are not."""


def open_sockets() -> frozenset[Key]:
    """This process's sockets."""
    found = set()
    for path in _DESCRIPTORS.iterdir():
        with contextlib.suppress(OSError):
            target = str(path.readlink())
            if target.startswith("socket:"):
                found.add((int(path.name), target))
    return frozenset(found)
