"""Workers in network namespaces of their own, on one bridge: links that can really be cut.

A link that is down swallows packets in both directions and tells nobody, as a dead switch does.
Needs root, and iproute2.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shardwise.api import environment
from shardwise.local.run import LocalRun

SECONDS = 30


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=SECONDS, capture_output=True, text=True)


@dataclass(frozen=True)
class Network:
    """A bridge with one namespace a worker."""

    name: str
    workers: int
    subnet: str
    """The first three numbers of its addresses."""

    @property
    def address(self) -> str:
        """The coordinator's side of the bridge."""
        return f"{self.subnet}.1"

    def namespace(self, index: int) -> str:
        return f"{self.name}-{index}"

    def worker_address(self, index: int) -> str:
        return f"{self.subnet}.{index + 10}"

    def cut(self, index: int) -> None:
        ip("link", "set", f"{self.name}v{index}", "down")

    def heal(self, index: int) -> None:
        ip("link", "set", f"{self.name}v{index}", "up")


@contextmanager
def network(workers: int) -> Iterator[Network]:
    pid = os.getpid()  # so that two of them may be there at once
    net = Network(f"sw{pid % 100_000}", workers, f"10.213.{pid % 256}")
    bridge = f"{net.name}b"
    ip("link", "add", bridge, "type", "bridge")
    try:
        ip("address", "add", f"{net.address}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for index in range(workers):
            space, outside, inside = net.namespace(index), f"{net.name}v{index}", "eth0"
            ip("netns", "add", space)
            ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
            ip("link", "set", outside, "master", bridge, "up")
            ip("-n", space, "address", "add", f"{net.worker_address(index)}/24", "dev", inside)
            ip("-n", space, "link", "set", inside, "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield net
    finally:
        for index in range(workers):
            subprocess.run(
                ["ip", "netns", "delete", net.namespace(index)], check=False, timeout=SECONDS
            )
        ip("link", "delete", bridge)


class NetworkRun(LocalRun):
    """A local run whose workers live in a network's namespaces, one launcher each."""

    network: Network

    @property
    def host(self) -> str:  # type: ignore[override]
        return self.network.address

    def command(self) -> list[str]:
        """All launchers, as children of one shell; each ends with its input."""
        starts = [
            shlex.join(
                [
                    *("ip", "netns", "exec", self.network.namespace(index), "env"),
                    f"{environment.INDEX}={index}",
                    f"{environment.WORKER}=worker-{index}",
                    f"{environment.ADDRESS}={self.network.worker_address(index)}",
                    *(sys.executable, "-m", "shardwise.worker"),
                ]
            )
            for index in range(self.network.workers)
        ]
        return ["bash", "-c", "".join(f"{start} & " for start in starts) + "wait"]
