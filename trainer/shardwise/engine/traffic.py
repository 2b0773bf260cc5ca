"""A group as the engine uses it: it beats before each wait, and waits for each transfer once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from shardwise.engine.activity import Beat
from shardwise.engine.group import Group, Work

CHUNK = 1 << 20
"""Elements of one transfer of a long vector: between two of them the worker beats."""
_LENGTH_TAG, _BODY_TAG = 0, 1


class Traffic:
    """Wraps a group; is one itself."""

    def __init__(self, group: Group, beat: Beat) -> None:
        self.rank, self.size = group.rank, group.size
        self.group = group
        self._beat = beat
        self._flying: dict[int, Work] = {}
        self._number = 0

    def send(self, tensor: Tensor, to: int, tag: int) -> Flight:
        return self._record(self.group.send(tensor, to, tag))

    def receive(self, tensor: Tensor, source: int, tag: int) -> Flight:
        return self._record(self.group.receive(tensor, source, tag))

    def _record(self, work: Work) -> Flight:
        self._number += 1
        self._flying[self._number] = work
        return Flight(self, self._number)

    def land(self, number: int) -> None:
        """Wait for one transfer."""
        if number in self._flying:
            self._beat("exchanging")
            self._flying[number].wait()
            del self._flying[number]

    @property
    def others(self) -> list[int]:
        """The other ranks, beginning with the neighbour, so that all links work at once."""
        return [(self.rank + distance) % self.size for distance in range(1, self.size)]


class Flight:
    """A transfer under way, by its number."""

    __slots__ = ("_number", "_traffic")

    def __init__(self, traffic: Traffic, number: int) -> None:
        self._traffic, self._number = traffic, number

    def wait(self) -> None:
        self._traffic.land(self._number)


def wait(works: Iterable[Work]) -> None:
    for work in works:
        work.wait()


def pass_bytes(
    traffic: Traffic, outgoing: Mapping[int, bytes], sources: Iterable[int], tag: int
) -> dict[int, bytes]:
    """Send each rank its bytes, and receive the bytes of each source. Uses `tag` and the next.

    Raises:
        GroupError: a peer is gone.
    """
    lengths = {source: torch.zeros(1, dtype=torch.int64) for source in sources}
    works = [traffic.receive(tensor, rank, tag + _LENGTH_TAG) for rank, tensor in lengths.items()]
    works += [
        traffic.send(torch.tensor([len(data)]), rank, tag + _LENGTH_TAG)
        for rank, data in outgoing.items()
    ]
    wait(works)
    bodies = {rank: torch.empty(int(length), dtype=torch.uint8) for rank, length in lengths.items()}
    works = []
    for rank, tensor in bodies.items():
        works += receive_all(traffic, tensor, rank, tag + _BODY_TAG)
    for rank, data in outgoing.items():
        works += send_all(traffic, _tensor(data), rank, tag + _BODY_TAG)
    wait(works)
    return {rank: tensor.numpy().tobytes() for rank, tensor in bodies.items()}


def _tensor(data: bytes) -> Tensor:
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def send_all(traffic: Traffic, vector: Tensor, to: int, tag: int) -> list[Flight]:
    """Send a 1-D vector of any length, in chunks."""
    return [traffic.send(chunk, to, tag) for chunk in _chunks(vector)]


def receive_all(traffic: Traffic, vector: Tensor, source: int, tag: int) -> list[Flight]:
    """Receive into a contiguous 1-D vector what `send_all` sends."""
    return [traffic.receive(chunk, source, tag) for chunk in _chunks(vector)]


def _chunks(vector: Tensor) -> list[Tensor]:
    return list(torch.split(vector, CHUNK)) if vector.numel() else []


def everybody_is_here(traffic: Traffic, tag: int) -> None:
    """Return once every member has called this.

    Raises:
        GroupError: a peer is gone; some members may have been told that all are here.
    """
    received = [torch.zeros(1, dtype=torch.uint8) for _ in traffic.others]
    works = [
        traffic.receive(tensor, rank, tag)
        for tensor, rank in zip(received, traffic.others, strict=True)
    ]
    sign = torch.ones(1, dtype=torch.uint8)
    works += [traffic.send(sign, rank, tag) for rank in traffic.others]
    wait(works)
