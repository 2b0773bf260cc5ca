"""One worker's control connection: lines in, lines out, and no way to hold anybody else up.

The service reads from it and writes to it. Sending never waits: what a worker does not take in
time, or in bounded size, ends its connection and nothing else. It knows messages, but no tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket

from shardwise.coordinator.budget import HELD_BYTES, HELLO_MESSAGES, Budget
from shardwise.coordinator.protocol import (
    MAX_WORKER_LINE,
    FromCoordinator,
    Message,
    Probe,
    ProtocolError,
    Refused,
    decode,
    encode,
)

log = logging.getLogger(__name__)

SEND_SECONDS = 10.0
"""How long a worker may leave its connection full."""
UNKNOWN_BYTES = 16 << 10
"""That are read of a connection before it is known whose it is."""
DISCARD_BYTES = 1 << 20
"""That are read and thrown away of a connection which was told to end."""
READ_BYTES = 1 << 16
AT_ONCE = 8
"""Messages of one connection before the others have their turn."""
OUTGOING_LIMIT = 8 << 20
"""Bytes that may wait for one worker."""
LINGER_SECONDS = 10.0
"""How long a worker that was told to end may leave its connection open."""
DEAD_PEER_SECONDS = 10
"""About how long a machine may be silent before the kernel gives its connections up."""


_TOKEN = re.compile(rb'\{ ?"type" ?: ?"hello" ?, ?"token" ?: ?"([A-Za-z0-9._~+/=-]*)"')
_BEGINNING = b'{"type":"hello","token":"'


class Connection:
    """A connection that was accepted; `order` counts them, so that the newer of two is known."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: int
    ) -> None:
        self.order = order
        self.budget: Budget | None = None
        """What its worker may say; None before it is known."""
        self._reader = reader
        self._writer = writer
        self._rest = bytearray()
        """What was read, and is no line yet."""
        self._searched = 0
        self._held = 0
        self._turns = 0
        self._pause = 0.0
        self._draining: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None
        peer = writer.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else "unknown"
        _tune(writer.get_extra_info("socket"))

    async def token(self) -> str | None:
        """The token that the connection begins with, and nothing else of what it says; None where
        it ends before.

        No more than UNKNOWN_BYTES are read for it, and nothing is parsed.

        Raises:
            ProtocolError: it begins with anything else.
            OSError: the connection broke.
        """
        while True:
            found = _TOKEN.match(self._rest)
            if found is not None:
                return found[1].decode()
            if b"\n" in self._rest or len(self._rest) >= UNKNOWN_BYTES:
                beginning = _BEGINNING.decode()
                raise ProtocolError(
                    f"a connection begins with a hello, {beginning}..., its token within "
                    f"{UNKNOWN_BYTES} bytes"
                )
            data = await self._reader.read(UNKNOWN_BYTES - len(self._rest))
            if not data:
                return None
            self._rest += data

    async def receive(self) -> Message | None:
        """The next message; None once the worker has ended the connection.

        What is over the worker's budget is waited out first.

        Raises:
            ProtocolError: a line is too long or no message.
            Refused: the worker, or its job, sends far more than the protocol needs.
            OSError: the connection broke.
        """
        line = await self._line()
        if line is None:
            return None
        message = decode(line)
        self._charge(len(line))
        return message

    async def _line(self) -> bytes | None:
        self._turns += 1
        if self._pause > 0 or self._turns % AT_ONCE == 0:
            pause, self._pause = self._pause, 0.0
            await asyncio.sleep(pause)
        while (end := self._rest.find(b"\n", self._searched)) < 0:
            self._searched = len(self._rest)
            _check_length(self._searched)
            data = await self._reader.read(READ_BYTES)
            if not data:
                return None  # A last line without its newline was cut off: its sender is gone.
            self._rest += data
            self._hold(len(self._rest))
        self._searched = 0
        _check_length(end)
        line = bytes(self._rest[: end + 1])
        del self._rest[: end + 1]
        self._hold(len(self._rest))
        return line

    def _hold(self, size: int) -> None:
        """All workers of a job together hold a bounded amount of what is no line yet."""
        if self.budget is not None:
            self.budget.job.held += size - self._held
            self._held = size
            if self.budget.job.held > HELD_BYTES:
                raise Refused(
                    "RefusedWorker",
                    f"the job's workers have sent {self.budget.job.held} bytes of messages that "
                    f"have no end, more than {HELD_BYTES}",
                )

    def _charge(self, size: int) -> None:
        if self.budget is None:
            return
        now = asyncio.get_running_loop().time()
        self._pause = self.budget.charge(size, now)
        if self.budget.floods(now):
            raise Refused("RefusedWorker", self.budget.told(now))

    def known(self, budget: Budget) -> None:
        """It is this budget's worker's; the hello that has begun counts for it."""
        self.budget = budget
        now = asyncio.get_running_loop().time()
        self._pause = budget.charge(0, now, HELLO_MESSAGES)
        self._hold(len(self._rest))

    def send(self, message: FromCoordinator, line: bytes | None = None) -> None:
        """Hand a message over for sending; `line` is its encoding, if that is known already."""
        if self._writer.is_closing():
            return
        self._writer.write(encode(message) if line is None else line)
        if isinstance(message, Probe) and self.budget is not None:
            self.budget.ask()
        waiting = self._writer.transport.get_write_buffer_size()
        if waiting > OUTGOING_LIMIT:
            log.warning("connection of %s dropped: %d bytes wait for it", self.peer, waiting)
            self.abort()
        elif waiting and (self._draining is None or self._draining.done()):
            self._draining = asyncio.create_task(self._drain())

    def end_soon(self) -> None:
        """Give the worker some time to read its last message and to close the connection."""
        if self._ending is None:
            loop = asyncio.get_running_loop()
            self._ending = loop.call_later(LINGER_SECONDS, self.abort)

    def abort(self) -> None:
        """Drop the connection at once; a pending `receive` ends."""
        # Python 3.11.2's TLS transport fails here once its connection is lost, which is as well.
        with contextlib.suppress(AttributeError):
            self._writer.transport.abort()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the worker."""
        return self._writer.transport.get_write_buffer_size()

    async def close(self) -> None:
        """Flush what waits, for a short time, and close."""
        self._release()
        if self._ending is not None:
            self._ending.cancel()
        if self._draining is not None:
            self._draining.cancel()
        self._writer.close()
        try:
            async with asyncio.timeout(1):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self.abort()

    async def discard(self, seconds: float = LINGER_SECONDS) -> None:
        """Read on to the end of the connection, for a bounded time and amount.

        Closing with unread input would reset the connection, and could take the last message
        from under the worker's eyes.
        """
        left = DISCARD_BYTES
        self._release()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                while left > 0 and (data := await self._reader.read(READ_BYTES)):
                    left -= len(data)

    def _release(self) -> None:
        self._rest.clear()
        if self.budget is not None:
            self.budget.job.held -= self._held
            self._held = 0

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            log.warning("connection of %s dropped: it takes nothing in", self.peer)
            self.abort()
        except OSError:
            pass  # The reader sees the same, and acts on it.


def _check_length(size: int) -> None:
    if size >= MAX_WORKER_LINE:
        raise ProtocolError(f"a line is longer than {MAX_WORKER_LINE} bytes")


def _tune(sock: socket.socket | None) -> None:
    """Send at once, and notice a machine that went silent."""
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (
        ("TCP_KEEPIDLE", DEAD_PEER_SECONDS // 2),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", DEAD_PEER_SECONDS // 2),
        ("TCP_USER_TIMEOUT", DEAD_PEER_SECONDS * 1000),
    ):
        # Not every system that local mode runs on has all of them.
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
