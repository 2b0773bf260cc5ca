"""One peer's connection once both ends have proven themselves: transfers by tag, nothing blocks.

What a peer sends goes straight into the tensor that was posted for its tag. A frame for which
none is posted stops the reading, and by TCP the peer's sending; where others are posted, it is put
aside instead, so that the order in which tensors are posted does not matter.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from shardwise.worker.frames import Buffers, FrameError, Frames

ASIDE_BYTES = 1 << 30
"""The most that is put aside of one peer."""
_TURN = 16
"""Buffers that are filled before others have their turn."""


class Transfer:
    """A tensor's bytes on their way."""

    __slots__ = ("done", "link", "view")

    def __init__(self, link: Link, tensor: Tensor) -> None:
        self.link = link
        self.view = _view(tensor)
        self.done = False


def _view(tensor: Tensor) -> memoryview:
    """A contiguous tensor's bytes, in place."""
    if not tensor.is_contiguous():
        raise ValueError("tensors that travel are contiguous")
    array: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


class Link:
    """One peer's connection.

    Args:
        connection: connected and proven; it belongs to the link from then on.

    Attributes:
        broken: why nothing comes or goes any more; empty while it does.
    """

    def __init__(self, connection: socket.socket, peer: int, frames: Frames) -> None:
        self.socket, self.peer = connection, peer
        self.broken = ""
        self._frames = frames
        self._sending: deque[tuple[Transfer, Iterator[Buffers]]] = deque()
        self._unsent: Buffers = []
        self._posted: dict[int, deque[Transfer]] = {}
        self._aside: dict[int, deque[bytearray]] = {}
        self._aside_bytes = 0
        self._landing: tuple[int, Transfer | bytearray] | None = None
        self._incoming = frames.incoming(self._place, self._landed)
        self._unfilled: Buffers | None = next(self._incoming)

    @property
    def events(self) -> int:
        """What to poll for."""
        if self.broken:
            return 0
        reads = select.POLLIN if self._unfilled is not None else 0
        return reads | (select.POLLOUT if self._sending else 0)

    def send(self, tensor: Tensor, tag: int) -> Transfer:
        """Begin to send; what the kernel takes at once is gone on return."""
        transfer = Transfer(self, tensor)
        self._sending.append((transfer, self._frames.outgoing(tag, transfer.view)))
        if len(self._sending) == 1:
            self.write()
        return transfer

    def receive(self, tensor: Tensor, tag: int) -> Transfer:
        """Post a tensor for the next frame of that tag."""
        transfer = Transfer(self, tensor)
        aside = self._aside.get(tag)
        if aside:
            data = aside.popleft()
            self._aside_bytes -= len(data)
            if not aside:
                del self._aside[tag]
            if len(data) != len(transfer.view):
                self._wrong_length(tag, len(data), len(transfer.view))
            else:
                transfer.view[:] = data
                transfer.done = True
            return transfer
        self._posted.setdefault(tag, deque()).append(transfer)
        if self._unfilled is None and not self.broken:
            self._next()
        return transfer

    def read(self) -> None:
        """Take in what is there."""
        for _ in range(_TURN):
            buffers = self._unfilled
            if buffers is None or self.broken:
                return
            try:
                if len(buffers) == 1:
                    count = self.socket.recv_into(buffers[0])
                else:
                    count = self.socket.recvmsg_into(buffers)[0]
            except BlockingIOError:
                return
            except OSError as error:
                self._break(f"the connection broke: {error}")
                return
            if not count:
                self._break("the connection ended")
                return
            if not _advance(buffers, count):
                self._next()
            else:
                return

    def write(self) -> None:
        """Hand the kernel what it takes."""
        while self._sending and not self.broken:
            transfer, rest = self._sending[0]
            if not self._unsent:
                buffers = next(rest, None)
                if buffers is None:
                    transfer.done = True
                    self._sending.popleft()
                    continue
                self._unsent = [buffer for buffer in buffers if len(buffer)]
            try:
                count = self.socket.sendmsg(self._unsent)
            except BlockingIOError:
                return
            except OSError as error:
                self._break(f"the connection broke: {error}")
                return
            if _advance(self._unsent, count):
                return

    def shut_down(self) -> None:
        """End it, from any thread: what polls for it wakes."""
        with contextlib.suppress(OSError):  # the peer was quicker
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Nothing touches the transfers' tensors from now on."""
        self._break("the group is over")
        self.socket.close()
        self._sending.clear()
        self._posted.clear()
        self._aside.clear()
        self._unsent, self._landing = [], None

    def _next(self) -> None:
        """Go on with what comes, once the buffers are full or a tensor was posted."""
        try:
            self._unfilled = next(self._incoming)
        except FrameError as error:
            self._break(f"the connection is not to be trusted: {error}")

    def _place(self, tag: int, length: int) -> memoryview | None:
        posted = self._posted.get(tag)
        if posted:
            transfer = posted.popleft()
            if not posted:
                del self._posted[tag]
            if len(transfer.view) != length:
                raise self._wrong_length(tag, length, len(transfer.view))
            self._landing = tag, transfer
            return transfer.view
        if not self._posted:
            return None
        self._aside_bytes += length
        if self._aside_bytes > ASIDE_BYTES:
            raise FrameError(f"more than {ASIDE_BYTES} bytes that nobody waits for")
        data = bytearray(length)
        self._landing = tag, data
        return memoryview(data)

    def _landed(self) -> None:
        assert self._landing is not None
        tag, what = self._landing
        self._landing = None
        if isinstance(what, Transfer):
            what.done = True
            return
        posted = self._posted.get(tag)
        if not posted:
            self._aside.setdefault(tag, deque()).append(what)
            return
        # Posted while it was under way.
        transfer = posted.popleft()
        if not posted:
            del self._posted[tag]
        self._aside_bytes -= len(what)
        if len(what) != len(transfer.view):
            raise self._wrong_length(tag, len(what), len(transfer.view))
        transfer.view[:] = what
        transfer.done = True

    def _wrong_length(self, tag: int, came: int, expected: int) -> FrameError:
        message = f"{came} bytes of tag {tag} came, where {expected} are expected"
        self._break(message)
        return FrameError(message)

    def _break(self, why: str) -> None:
        self.broken = self.broken or why


def _advance(buffers: Buffers, count: int) -> bool:
    """Drop that many bytes from the front; whether any are left."""
    while buffers:
        size = len(buffers[0])
        if count < size:
            if count:
                buffers[0] = buffers[0][count:]
            return True
        count -= size
        del buffers[0]
    return False
