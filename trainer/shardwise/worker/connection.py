"""One connection to the coordinator: a socket, lines in, lines out. Knows nothing of groups."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator

from shardwise.coordinator.protocol import MAX_LINE, FromWorker, Hello, ProtocolError, encode
from shardwise.worker.settings import Settings

CONNECT_TIMEOUT_SECONDS = 2.0
"""An operator that has moved leaves a dead address behind for a moment: packets to it vanish."""
HANDSHAKE_TIMEOUT_SECONDS = 10.0
SEND_TIMEOUT_SECONDS = 30.0
DEAD_PEER_SECONDS = 10
"""About how long the coordinator's machine may be silent before the kernel gives it up."""


class Connection:
    """An open connection; the hello has been sent.

    Raises:
        OSError: the coordinator cannot be reached.
    """

    def __init__(self, settings: Settings, hello: Hello) -> None:
        address = (settings.host, settings.port)
        plain = socket.create_connection(address, timeout=CONNECT_TIMEOUT_SECONDS)
        _notice_dead_peers(plain)
        self._socket: socket.socket = plain
        if settings.certificate is not None:
            plain.settimeout(HANDSHAKE_TIMEOUT_SECONDS)
            context = ssl.create_default_context(cadata=settings.certificate)
            self._socket = context.wrap_socket(plain, server_hostname=settings.server_name)
        self._socket.settimeout(SEND_TIMEOUT_SECONDS)
        # A TLS connection may not be read and written by two threads at once (before Python 3.13).
        self._lock = threading.Lock()
        self._socket.sendall(encode(hello))

    def send(self, message: FromWorker) -> bool:
        """Whether it was handed to the kernel."""
        try:
            with self._lock:
                self._socket.sendall(encode(message))
        except (OSError, ValueError):  # ValueError: closed by the reading thread
            return False
        return True

    def lines(self, tick_seconds: float) -> Iterator[bytes | None]:
        """Lines until the connection ends, and None whenever a tick passes without one.

        Raises:
            OSError: the connection broke.
            ProtocolError: a line is too long.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        rest = b""
        while True:
            pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
            if not pending and not poll.poll(tick_seconds * 1000):
                yield None
                continue
            # Wait without the lock, take what is there with the lock, and never both.
            with self._lock:
                self._socket.settimeout(0)
                try:
                    data = self._socket.recv(1 << 16)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                finally:
                    self._socket.settimeout(SEND_TIMEOUT_SECONDS)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                raise ProtocolError(f"a line is longer than {MAX_LINE} bytes")
            yield from lines

    def shut_down(self) -> None:
        """End it from any thread: whoever reads sees its end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            self._socket.close()


def _notice_dead_peers(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", DEAD_PEER_SECONDS // 2),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", DEAD_PEER_SECONDS // 2),
        ("TCP_USER_TIMEOUT", DEAD_PEER_SECONDS * 1000),
    ):
        # Not every system that local mode runs on has all of them.
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
