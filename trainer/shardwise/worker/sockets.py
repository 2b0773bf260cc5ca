"""Ends a process group's transfers at once, by shutting its sockets down.

gloo has no abort: a transfer to a peer that hangs waits for its timeout. Shutting down the sockets
under it makes every blocked transfer raise within about a millisecond, from any thread. Only
sockets that the group itself opened are touched, and never its listener: shutting that down would
end the process (research/fault_tolerance.md 2.3).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection
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


def shut_down(keys: Collection[Key]) -> int:
    """Shut down those of the sockets that are still open and connected; how many."""
    done = 0
    for key in open_sockets() & set(keys):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(key[0])) as copy:
            if copy.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            copy.getpeername()  # a listener has none, and must be left alone
            copy.shutdown(socket.SHUT_RDWR)
            done += 1
    return done
