"""Strangers at the workers' ports: whoever reaches one, and knows what is public.

    python strangers.py PID=ADDRESS...

They see each port the moment that it listens, which is more than a scan of a network could do, and
try whatever they can think of: gloo's own greeting, as a rank of the group; half of a handshake;
one with another secret; silence; garbage. They come until their input ends, and then tell as JSON
what they have had of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shardwise.worker.handshake import NONCE_BYTES, Connector, Self

LISTEN = "0A"
HELD = 2000
"""Connections that stay open; the oldest makes room."""
SECONDS = 30.0


def listening(pid: int) -> set[int]:
    """The TCP ports that somebody listens on in the network namespace of a process."""
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        part = line.split()
        if part[3] == LISTEN:
            found.add(int(part[1].rpartition(":")[2], 16))
    return found


def knock(generation: int) -> bytes:
    """One with another secret."""
    me = Self(
        secret=os.urandom(32), generation=generation, rank=1, size=2, protection="authenticated"
    )
    return Connector(me, 0, os.urandom(NONCE_BYTES)).knock


def greetings(number: int) -> list[bytes]:
    """What they say, one a connection."""
    return [
        (number % 4).to_bytes(8, "little"),  # a rank, as gloo's members greet each other
        b"",
        knock(number),
        knock(number)[:40],
        os.urandom(number % 100 + 1),
        os.urandom(4096),
        b"GET / HTTP/1.1\r\n\r\n",
    ]


class Crowd:
    """All of them."""

    def __init__(self, workers: Mapping[int, str]) -> None:
        self._workers = workers
        self._held: deque[socket.socket] = deque()
        self.made = 0
        self.ports: set[tuple[str, int]] = set()
        self.told: list[str] = []

    def run(self) -> None:
        number = 0
        while not select.select([sys.stdin], [], [], 0)[0]:
            for pid, address in self._workers.items():
                with contextlib.suppress(OSError):
                    for port in listening(pid):
                        number += 1
                        self._crowd(address, port, number)
            self._hear(len(self._held) - HELD)
        self._hear(len(self._held))

    def _crowd(self, address: str, port: int, number: int) -> None:
        for greeting in greetings(number):
            with contextlib.suppress(OSError):  # it has cut one off, or listens no more
                stranger = socket.create_connection((address, port), timeout=0.5)
                self._held.append(stranger)
                self.made += 1
                self.ports.add((address, port))
                stranger.settimeout(0)
                stranger.send(greeting)

    def _hear(self, count: int) -> None:
        """What those were told that have been there for longest."""
        for _ in range(count):
            with self._held.popleft() as stranger, contextlib.suppress(OSError):
                data = stranger.recv(1000)
                if data:
                    self.told.append(data.hex())


@contextlib.contextmanager
def strangers(workers: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    """A crowd in a process of its own; what it has had of it is there in the end.

    Args:
        workers: the address of each worker, by a process of its network namespace.
    """
    outcome: dict[str, Any] = {}
    command = [sys.executable, __file__, *(f"{pid}={at}" for pid, at in workers.items())]
    crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert crowd.stdout is not None
    try:
        crowd.stdout.readline()
        yield outcome
        outcome |= json.loads(crowd.communicate(b"", SECONDS)[0])
    finally:
        crowd.kill()
        crowd.communicate()


def main() -> None:
    pairs = [word.partition("=") for word in sys.argv[1:]]
    crowd = Crowd({int(pid): address for pid, _, address in pairs})
    print("here", flush=True)
    crowd.run()
    print(json.dumps({"made": crowd.made, "ports": len(crowd.ports), "told": crowd.told}))


if __name__ == "__main__":
    main()
