"""The process group of one generation: gloo, found over the control connection.

torch's own TCPStore cannot be given up while it waits, so the rendezvous store is pushed over the
control connection and raises as soon as its generation is superseded. gloo's private options are
used in this module only; torch is pinned for their sake.
"""

from __future__ import annotations

import base64
import queue
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor

from shardwise.coordinator.protocol import KeyValue
from shardwise.engine.group import GroupError
from shardwise.worker.control import Control, Superseded
from shardwise.worker.sockets import open_sockets, shut_down

TRANSFER_TIMEOUT = timedelta(hours=24)
"""Bounds one transfer. A death ends it at once, a hang by the coordinator's order to abort; until
a coordinator that is away comes back, it waits."""


class PushedStore(dist.Store):  # type: ignore[misc,name-defined,unused-ignore]
    """A c10d store for one generation, whose values the coordinator pushes to all members."""

    def __init__(self, control: Control, generation: int, timeout: timedelta) -> None:
        super().__init__()
        self._control, self._generation, self._timeout = control, generation, timeout

    def set(self, key: str, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._control.send(KeyValue(generation=self._generation, key=_plain(key), value=data))

    def get(self, key: str) -> bytes:
        seconds = self._timeout.total_seconds()
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
        return self._timeout

    def clone(self) -> PushedStore:
        return self

    def has_extended_api(self) -> bool:
        return False


def _plain(key: str) -> str:
    """gloo's keys hold any bytes; the protocol's are text."""
    if key.isascii() and key.isprintable():
        return key
    return base64.b64encode(key.encode("utf-8", "surrogateescape")).decode()


class _Waits:
    """Waits for transfers in a thread of its own, so that the training thread can give one up.

    When a connection ends, gloo wakes whoever waits for a transfer that has not begun, and forgets
    those that are half done: a message of which a part has been read, or written. Their waits end
    with their timeout only, and nothing else ends them (gloo's Pair::signalException).
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[dist.Work | None] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._given_up = False
        threading.Thread(target=self._run, name="transfers", daemon=True).start()

    def wait(self, work: dist.Work) -> None:
        """Return when a transfer is complete.

        Raises:
            RuntimeError: it has failed, or all are given up.
        """
        if not self._given_up:
            self._orders.put(work)
            error = self._ends.get()
        # Once given up, an end may be that of an earlier wait.
        if self._given_up:
            raise RuntimeError("the group is given up")
        if error is not None:
            raise error

    def give_up(self) -> None:
        """End the wait under way, and every one that follows, from any thread."""
        self._given_up = True
        self._ends.put(None)

    def close(self) -> None:
        """No wait follows. A thread that waits for a forgotten transfer stays for ever, and holds
        that transfer's memory."""
        self._orders.put(None)

    def _run(self) -> None:
        while (work := self._orders.get()) is not None:
            end: Exception | None = RuntimeError("the wait for it failed")
            try:
                # A point-to-point transfer keeps its group's first timeout unless it is given one.
                work.wait(TRANSFER_TIMEOUT)
                end = None
            except RuntimeError as error:
                end = error
            finally:
                self._ends.put(end)


class _Transfer:
    def __init__(
        self, work: dist.Work, peer: int, waits: _Waits, before_wait: Callable[[], None]
    ) -> None:
        self._work, self._peer, self._waits = work, peer, waits
        self._before_wait = before_wait

    def wait(self) -> None:
        self._before_wait()
        try:
            self._waits.wait(self._work)
        except RuntimeError as error:
            raise GroupError(f"a transfer failed: {error}", self._peer) from error


class GlooGroup:
    """A formed group over gloo.

    Args:
        timeout: for the exchange of addresses and the connections to all peers.
        before_wait: called before each wait for a transfer.

    Raises:
        GroupError: the group could not be built.
        Superseded: a newer generation came while it was being built.
    """

    def __init__(
        self,
        control: Control,
        generation: int,
        place: tuple[int, int],
        *,
        address: str,
        timeout: timedelta,
        before_wait: Callable[[], None],
    ) -> None:
        self.rank, self.size = place
        self._before_wait = before_wait
        gloo: Any = dist.ProcessGroupGloo  # its type stubs lack most of it
        options = gloo._Options()
        options._timeout = timeout
        options._devices = [gloo.create_device(hostname=address)]
        before = open_sockets()
        try:
            store = PushedStore(control, generation, timeout)
            self._group: Any = gloo(store, self.rank, self.size, options)
        except Superseded:
            raise
        except (RuntimeError, TimeoutError) as error:
            raise GroupError(f"generation {generation} could not connect: {error}") from error
        # The control connection may have been renewed meanwhile; it is not the group's.
        self._sockets = open_sockets() - before - control.sockets()
        self._waits = _Waits()

    def send(self, tensor: Tensor, to: int, tag: int) -> _Transfer:
        try:
            work = self._group.send([tensor], to, tag)
        except RuntimeError as error:
            raise GroupError(f"cannot send to rank {to}: {error}", to) from error
        return _Transfer(work, to, self._waits, self._before_wait)

    def receive(self, tensor: Tensor, source: int, tag: int) -> _Transfer:
        try:
            work = self._group.recv([tensor], source, tag)
        except RuntimeError as error:
            raise GroupError(f"cannot receive from rank {source}: {error}", source) from error
        return _Transfer(work, source, self._waits, self._before_wait)

    def abort(self) -> None:
        """End all transfers at once, from any thread; the group is broken from then on."""
        shut_down(self._sockets)
        self._waits.give_up()

    def release(self) -> object:
        """What stands behind this group; whoever drops it closes the group."""
        self._waits.close()
        behind, self._group = self._group, None
        return behind


class Reaper:
    """Drops groups that are over, in a thread of its own: closing a healthy one takes 20 ms.

    What a broken transfer may still write into is kept until its group is gone.
    """

    def __init__(self) -> None:
        self._condemned: queue.SimpleQueue[list[object]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="reaper", daemon=True).start()

    def take(self, group: object, *kept: object) -> None:
        """Drop the group, then what was kept for it."""
        self._condemned.put([*kept, group])

    def _run(self) -> None:
        while True:
            condemned = self._condemned.get()
            while condemned:
                condemned.pop()  # the group first
