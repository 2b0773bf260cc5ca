"""The process group of one generation: gloo, found over the control connection.

torch's own TCPStore cannot be given up while it waits, so the rendezvous store is pushed over the
control connection and raises as soon as its generation is superseded. gloo's private options are
used in this module only; torch is pinned for their sake.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor

from shardwise.coordinator.protocol import KeyValue
from shardwise.engine.group import GroupError
from shardwise.worker.control import Control, Superseded

CONNECT_TIMEOUT = timedelta(seconds=20)
"""Bounds the building of a group: exchange of addresses and connections to all peers."""
TRANSFER_TIMEOUT = timedelta(hours=1)
"""Bounds one transfer; a peer's death ends it at once, so this is for a hung peer only."""


class PushedStore(dist.Store):  # type: ignore[misc,name-defined,unused-ignore]
    """A c10d store for one generation, whose values the coordinator pushes to all members."""

    def __init__(self, control: Control, generation: int) -> None:
        super().__init__()
        self._control, self._generation = control, generation

    def set(self, key: str, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._control.send(KeyValue(generation=self._generation, key=_plain(key), value=data))

    def get(self, key: str) -> bytes:
        seconds = CONNECT_TIMEOUT.total_seconds()
        return self._control.wait_value(self._generation, _plain(key), seconds)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        del timeout
        for key in keys:
            self.get(key)

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.get(key) for key in keys]

    def set_timeout(self, timeout: timedelta) -> None:
        del timeout  # the generation bounds it

    def timeout(self) -> timedelta:
        return CONNECT_TIMEOUT

    def clone(self) -> PushedStore:
        return self

    def has_extended_api(self) -> bool:
        return False


def _plain(key: str) -> str:
    """gloo's keys hold any bytes; the protocol's are text."""
    if key.isascii() and key.isprintable():
        return key
    return base64.b64encode(key.encode("utf-8", "surrogateescape")).decode()


class _Transfer:
    def __init__(self, work: dist.Work) -> None:
        self._work = work

    def wait(self) -> None:
        try:
            # A point-to-point transfer keeps its group's first timeout unless it is given one.
            self._work.wait(TRANSFER_TIMEOUT)
        except RuntimeError as error:
            raise GroupError(f"a transfer failed: {error}") from error


class GlooGroup:
    """A formed group over gloo.

    Raises:
        GroupError: the group could not be built.
        Superseded: a newer generation came while it was being built.
    """

    def __init__(
        self, control: Control, generation: int, rank: int, size: int, address: str
    ) -> None:
        self.rank, self.size = rank, size
        gloo: Any = dist.ProcessGroupGloo  # its type stubs lack most of it
        options = gloo._Options()
        options._timeout = CONNECT_TIMEOUT
        options._devices = [gloo.create_device(hostname=address)]
        try:
            store = PushedStore(control, generation)
            self._group = gloo(store, rank, size, options)
        except Superseded:
            raise
        except (RuntimeError, TimeoutError) as error:
            raise GroupError(f"generation {generation} could not connect: {error}") from error

    def send(self, tensor: Tensor, to: int, tag: int) -> _Transfer:
        try:
            return _Transfer(self._group.send([tensor], to, tag))
        except RuntimeError as error:
            raise GroupError(f"cannot send to rank {to}: {error}") from error

    def receive(self, tensor: Tensor, source: int, tag: int) -> _Transfer:
        try:
            return _Transfer(self._group.recv([tensor], source, tag))
        except RuntimeError as error:
            raise GroupError(f"cannot receive from rank {source}: {error}") from error
