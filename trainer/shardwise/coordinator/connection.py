"""One worker's control connection: lines in, lines out, and no way to hold anybody else up.

The service reads from it and writes to it. Sending never waits: what a worker does not take in
time, or in bounded size, ends its connection and nothing else. It knows messages, but no tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from shardwise.coordinator.protocol import FromCoordinator, Message, ProtocolError, decode, encode

log = logging.getLogger(__name__)

SEND_SECONDS = 10.0
"""How long a worker may leave its connection full."""
OUTGOING_LIMIT = 8 << 20
"""Bytes that may wait for one worker."""
LINGER_SECONDS = 10.0
"""How long a worker that was told to end may leave its connection open."""
DEAD_PEER_SECONDS = 10
"""About how long a machine may be silent before the kernel gives its connections up."""


class Connection:
    """A connection that was accepted; `order` counts them, so that the newer of two is known."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: int
    ) -> None:
        self.order = order
        self._reader = reader
        self._writer = writer
        self._draining: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None
        peer = writer.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if peer else "unknown"
        _tune(writer.get_extra_info("socket"))

    async def receive(self) -> Message | None:
        """The next message; None once the worker has ended the connection.

        Raises:
            ProtocolError: a line is too long or no message.
            OSError: the connection broke.
        """
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise ProtocolError("a line is longer than the protocol's limit") from error
        # A last line without its newline was cut off: its sender is gone.
        return decode(line) if line.endswith(b"\n") else None

    def send(self, message: FromCoordinator, line: bytes | None = None) -> None:
        """Hand a message over for sending; `line` is its encoding, if that is known already."""
        if self._writer.is_closing():
            return
        self._writer.write(encode(message) if line is None else line)
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

    async def close(self) -> None:
        """Flush what waits, for a short time, and close."""
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
        """Read on to the end of the connection, for a bounded time.

        Closing with unread input would reset the connection, and could take the last message
        from under the worker's eyes.
        """
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._reader.read(1 << 16):
                    pass

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            log.warning("connection of %s dropped: it takes nothing in", self.peer)
            self.abort()
        except OSError:
            pass  # The reader sees the same, and acts on it.


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
