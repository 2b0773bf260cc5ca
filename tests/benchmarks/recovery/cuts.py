"""Links that are cut: what is sent to a worker or by it vanishes, and nobody is told.

The workers are in network namespaces, those of tests/local; needs root.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ours

from shardwise.local.run import LocalRun

sys.path.append(str(Path(__file__).resolve().parents[2] / "local"))
from network import Network, NetworkRun, network


class Cuts(ours.Blows):
    """Cuts the links of one network."""

    def __init__(self, net: Network) -> None:
        class Run(NetworkRun):
            network = net

        self.kind, self._net = Run, net

    def strike(self, run: LocalRun, index: int) -> None:
        del run
        self._net.cut(index)

    def heal(self, index: int) -> None:
        self._net.heal(index)


@contextmanager
def cuts(workers: int) -> Iterator[Cuts]:
    """Cuts in a network for that many workers."""
    with network(workers) as net:
        yield Cuts(net)
