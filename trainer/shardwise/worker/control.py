"""The worker's control connection: a thread that talks to the coordinator while training runs.

It reconnects for as long as the worker lives: training never waits for the coordinator, except to
change membership. The training thread asks it for the latest generation, the go and the
rendezvous values, and hands it what there is to tell.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from shardwise.coordinator.protocol import (
    MAX_LINE,
    Bye,
    FromWorker,
    Generation,
    Go,
    Hello,
    KeyValue,
    Phase,
    ProtocolError,
    Refusal,
    Stop,
    Welcome,
    decode,
    encode,
)
from shardwise.coordinator.report import Assignment
from shardwise.worker.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 10.0
SEND_TIMEOUT_SECONDS = 30.0
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Superseded(Exception):  # noqa: N818 - an event, not a fault
    """A newer generation was announced, or the connection was renewed while one formed."""


class Control:
    """The connection. All waiting methods raise TimeoutError when `timeout` seconds have passed.

    Args:
        on_end: called from the connection's thread when the coordinator ends or refuses this
            worker: (reason, message, refused). It must not return to training.
    """

    def __init__(
        self,
        settings: Settings,
        fingerprint: Mapping[str, str | int | float],
        on_end: Callable[[str, str, bool], None],
    ) -> None:
        self._settings, self._fingerprint, self._on_end = settings, fingerprint, on_end
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._socket: socket.socket | None = None
        self._connection = 0
        self._assignment: Assignment | None = None
        self._generation: Generation | None = None
        self._go: Go | None = None
        self._values: dict[tuple[int, str], bytes] = {}
        self._bye = False
        self._state: tuple[int, Phase, int] = (0, "idle", 0)
        threading.Thread(target=self._run, name="control", daemon=True).start()

    def set_state(self, generation: int, phase: Phase, step: int) -> None:
        """What a hello says of this worker, should the connection have to be renewed."""
        self._state = (generation, phase, step)

    def send(self, message: FromWorker) -> bool:
        """Send if there is a connection; whether it was handed to the kernel."""
        with self._sending:
            connection = self._socket
            if connection is None:
                return False
            try:
                connection.sendall(encode(message))
            except OSError:
                return False
            return True

    def wait_assignment(self, timeout: float) -> Assignment:
        return self._wait(lambda: self._assignment, timeout, "an assignment")

    def wait_generation(self, after: int, timeout: float) -> Generation:
        """The latest generation, numbered above `after`."""

        def newer() -> Generation | None:
            latest = self._generation
            return latest if latest is not None and latest.generation > after else None

        return self._wait(newer, timeout, "a generation")

    def wait_go(self, generation: int, timeout: float) -> Go:
        """The go of a generation.

        Raises:
            Superseded: a newer generation came, or the coordinator was lost meanwhile.
        """
        connection = self._connection

        def go() -> Go | None:
            self._check_current(generation, connection)
            return self._go if self._go and self._go.generation == generation else None

        return self._wait(go, timeout, "all members")

    def wait_value(self, generation: int, key: str, timeout: float) -> bytes:
        """A value of the generation's rendezvous store.

        Raises:
            Superseded: a newer generation came, or the coordinator was lost meanwhile.
        """
        connection = self._connection

        def value() -> bytes | None:
            self._check_current(generation, connection)
            return self._values.get((generation, key))

        return self._wait(value, timeout, f"the rendezvous value {key!r}")

    def deliver(self, message: FromWorker, timeout: float) -> bool:
        """Send until the coordinator says bye, over new connections if need be."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            connection = self._connection
            sent = self.send(message)

            def answered_or_renewed(before: int = connection, sent: bool = sent) -> bool:
                renewed = self._connection != before or (not sent and self._socket is not None)
                return self._bye or renewed

            try:
                self._wait(lambda test=answered_or_renewed: test() or None, min(left, 5.0), "bye")  # type: ignore[misc]
            except TimeoutError:
                continue
            if self._bye:
                return True
        return False

    def _check_current(self, generation: int, connection: int) -> None:
        latest = self._generation
        if latest is not None and latest.generation > generation:
            raise Superseded(f"generation {latest.generation} supersedes {generation}")
        if self._connection != connection:
            raise Superseded(f"the coordinator was lost while generation {generation} formed")

    def _wait(self, value: Callable[[], T | None], timeout: float, what: str) -> T:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (found := value()):
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no {what} within {timeout:.0f} s")
            return found

    def _run(self) -> None:
        attempt = 0
        while True:
            welcomed = False
            try:
                connection = self._connect()
                try:
                    for line in self._lines(connection):
                        self._take(connection, decode(line))
                        welcomed = True
                finally:
                    with self._sending:
                        self._socket = None
                    connection.close()
            except (OSError, ProtocolError) as error:
                if attempt in (0, 10, 100):
                    log.warning("the control connection: %s; trying on", error)
            with self._changed:
                self._connection += 1
                self._changed.notify_all()
            # A connection that closes before its welcome is no better than none.
            attempt = 0 if welcomed else attempt + 1
            time.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])  # the back-off

    def _connect(self) -> socket.socket:
        settings = self._settings
        address = (settings.host, settings.port)
        plain = socket.create_connection(address, timeout=CONNECT_TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = plain
        if settings.certificate is not None:
            context = ssl.create_default_context(cadata=settings.certificate)
            connection = context.wrap_socket(plain, server_hostname=settings.server_name)
        connection.settimeout(SEND_TIMEOUT_SECONDS)
        generation, phase, step = self._state
        hello = Hello(
            token=settings.token_file.read_text().strip(),
            worker=settings.worker,
            index=settings.index,
            fingerprint=self._fingerprint,
            generation=generation,
            phase=phase,
            step=step,
        )
        connection.sendall(encode(hello))
        return connection

    def _lines(self, connection: socket.socket) -> Iterator[bytes]:
        """Lines until the connection ends.

        A TLS connection may not be read and written by two threads at once (before Python 3.13),
        so the thread waits for data without the lock and takes it with the lock, without waiting.
        """
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        rest = b""
        while True:
            if not (isinstance(connection, ssl.SSLSocket) and connection.pending()):
                poll.poll()
            with self._sending:
                connection.settimeout(0)
                try:
                    data = connection.recv(1 << 16)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                finally:
                    connection.settimeout(SEND_TIMEOUT_SECONDS)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE:
                raise ProtocolError(f"a line is longer than {MAX_LINE} bytes")
            yield from lines

    def _take(self, connection: socket.socket, message: object) -> None:
        if isinstance(message, Stop):
            self._on_end(message.reason, message.message, False)
            return
        if isinstance(message, Refusal):
            self._on_end(message.reason, message.message, True)
            return
        with self._changed:
            match message:
                case Welcome(assignment=assignment):
                    self._assignment = assignment
                    with self._sending:
                        self._socket = connection
                case Generation():
                    self._generation = message
                    current = message.generation
                    self._values = {k: v for k, v in self._values.items() if k[0] >= current}
                case Go():
                    self._go = message
                case KeyValue(generation=generation, key=key, value=value):
                    self._values[generation, key] = value
                case Bye():
                    self._bye = True
            self._changed.notify_all()
