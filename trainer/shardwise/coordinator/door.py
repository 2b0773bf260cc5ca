"""The listening sockets, and every connection until it is known whose it is.

A stranger costs as little as can be at each stage. Who says nothing holds a descriptor, and no more
than so many do: the oldest has to go. Once its first byte is here a connection waits for its turn,
places by turns, and only then is TLS begun, for so many at a time. What is in TLS and still unknown
is bounded again; who makes us wait there goes first, and never who waits for us. So an honest
worker, which says what it has to say at once, comes in while thousands of others are held at bay.
The service says who is known: from then on a connection is its business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import resource
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from socket import AF_INET
from ssl import SSLContext

from shardwise.coordinator.connection import UNKNOWN_BYTES
from shardwise.coordinator.crowd import Crowd, place

log = logging.getLogger(__name__)

BACKLOG = 4096
SILENT_SECONDS = 5.0
"""How long a connection may be here before its first byte."""
SWEEP_SECONDS = 0.5
HANDSHAKE_SECONDS = 5.0
HELD_UP_SECONDS = 0.03
"""A handshake that takes longer waits for the other side: another one is begun beside it."""
IDLE_SECONDS = 0.25
"""Who makes us wait for longer may have to make room."""
ACCEPTS = 16
"""Connections that are taken in one turn of the loop."""
PAUSE_SECONDS = 0.1
"""Without descriptors, before the next try."""
BUFFER_BYTES = 16 << 10
"""That the kernel holds of an unknown connection."""
KNOWN_BUFFER_BYTES = 256 << 10
HANDSHAKE = b"\x16"
"""How a TLS record with a handshake in it begins; its length is in its fourth and fifth byte."""
RECORD_BYTES = 8 << 10
"""No ClientHello that we can use is longer."""
TELL_SECONDS = 10.0
"""Between two lines in the log about who was turned away."""
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many connections at each stage."""

    waiting: int = 4096
    """Before TLS: those that said nothing yet, and those whose turn has not come."""
    unknown: int = 256
    """In TLS or after, and not known yet."""
    handshakes: int = 32
    """At the same time, but for those that the other side holds up."""
    known: int = 1 << 20

    @classmethod
    def of(cls, descriptors: int) -> Limits:
        """What fits a process that may open so many files; some are kept for everything else."""
        most = cls()
        if descriptors == resource.RLIM_INFINITY:
            return most
        room = max(64, descriptors - min(256, descriptors // 4))
        waiting, unknown = min(most.waiting, room // 4), min(most.unknown, room // 8)
        return cls(waiting=waiting, unknown=unknown, known=room - waiting - unknown)


class Guest:
    """A connection whose sender is not known yet."""

    __slots__ = ("awaited", "came", "hosted", "known", "place", "sock", "stall", "task")

    def __init__(self, sock: socket.socket, where: str, came: float) -> None:
        self.sock = sock
        self.place = where
        self.came = came
        self.awaited = 0
        """Bytes that it has to say before its turn may come."""
        self.task: asyncio.Task[None] | None = None
        self.stall: asyncio.TimerHandle | None = None
        self.hosted = False
        """Its task has begun, and closes the socket."""
        self.known = False


Serve = Callable[["Visit"], Awaitable[None]]


class Door:
    """Takes connections and hands each over once TLS stands.

    Args:
        serve: what is done with a connection, from its first line to its end. Cancelled where it
            has to make room before it is known.
        limits: None: by what this process may open.
    """

    def __init__(self, serve: Serve, limits: Limits | None = None) -> None:
        self._serve = serve
        self.limits = limits or Limits.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._context: SSLContext | None = None
        self._listeners: list[socket.socket] = []
        self._silent: OrderedDict[Guest, None] = OrderedDict()
        self._quiet: Crowd[Guest] = Crowd()
        """The silent ones by place."""
        self._ready: Crowd[Guest] = Crowd()
        """Those that have said something and wait for their turn."""
        self._shaking: set[Guest] = set()
        """Whose handshake is under way, and not held up."""
        self._unknown: Crowd[Guest] = Crowd()
        """In TLS or after it, and not known."""
        self._idle: Crowd[Guest] = Crowd()
        """Of them, those that make us wait for a while already."""
        self._known = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self.turned_away = 0
        """Connections that had to make room or took too long."""
        self._told = 0
        self._told_at = float("-inf")

    # Opening and closing.

    async def open(self, host: str, port: int, context: SSLContext | None) -> int:
        """Listen; port 0 picks a free one. Gives the port: that of IPv4, where there are more.

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._context = context
        # asyncio knows which addresses a host has; it does not listen on them, as it would take
        # any number of connections.
        server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
        self._listeners = [each.dup() for each in server.sockets]
        server.close()
        for listener in self._listeners:
            listener.setblocking(False)
            # What it takes in inherits this. The window can still grow later.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            listener.listen(BACKLOG)
            loop.add_reader(listener, self._come, listener)
        self._sweep()
        # A free port is another one for each family, and who connects to it does so by IPv4.
        listening = sorted(self._listeners, key=lambda each: each.family != AF_INET)
        bound: int = listening[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Take nobody in any more, and end whoever is here, known or not."""
        self._closed = True
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for guest in [*self._silent, *self._ready]:
            self._drop(guest)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def counts(self) -> dict[str, int]:
        """How many are at each stage."""
        return {
            "silent": len(self._silent),
            "ready": len(self._ready),
            "unknown": len(self._unknown),
            "known": self._known,
        }

    # Before TLS.

    def _come(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._pause(listener, error)
                    return
                raise
            sock.setblocking(False)
            self._arrived(Guest(sock, place(address), asyncio.get_running_loop().time()))

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Take nobody in for a moment, so that the loop does not turn for nothing."""
        log.warning("no connection can be taken: %s", error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        with contextlib.suppress(ValueError):
            self._turn_away(self._quiet.oldest())
        loop.call_later(PAUSE_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if not self._closed:
            asyncio.get_running_loop().add_reader(listener, self._come, listener)

    def _arrived(self, guest: Guest) -> None:
        self._silent[guest] = None
        self._quiet.add(guest, guest.place)
        asyncio.get_running_loop().add_reader(guest.sock, self._spoke, guest)
        if len(self._silent) + len(self._ready) > self.limits.waiting:
            # Who has said nothing goes first: an honest worker speaks at once.
            self._turn_away(self._quiet.oldest() if len(self._quiet) > 1 else self._ready.newest())

    def _spoke(self, guest: Guest) -> None:
        try:
            said = guest.sock.recv(RECORD_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said = b""
        awaited = 1 if self._context is None else _client_hello(said)
        if not said or awaited is None or (len(said) < awaited <= guest.awaited):
            self._drop(guest)  # It has ended, or speaks no TLS.
            return
        if len(said) < awaited:
            # Half a beginning is silence. The kernel wakes us once all of it is there.
            guest.awaited = awaited
            guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, awaited)
            return
        guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._forget(guest)
        self._ready.add(guest, guest.place)
        self._advance()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        while self._silent and next(iter(self._silent)).came < loop.time() - SILENT_SECONDS:
            self._turn_away(next(iter(self._silent)))
        if self.turned_away > self._told and loop.time() - self._told_at > TELL_SECONDS:
            new = self.turned_away - self._told
            self._told, self._told_at = self.turned_away, loop.time()
            log.warning("%d connections of nobody known were turned away (%s)", new, self.counts)

    def _forget(self, guest: Guest) -> None:
        if guest in self._silent:
            del self._silent[guest]
            self._quiet.remove(guest)
            asyncio.get_running_loop().remove_reader(guest.sock)
        self._ready.remove(guest)

    def _drop(self, guest: Guest) -> None:
        self._forget(guest)
        guest.sock.close()

    def _turn_away(self, guest: Guest) -> None:
        self.turned_away += 1
        if guest.task is not None:
            self._unknown.remove(guest)
            self._idle.remove(guest)
            guest.task.cancel()
        else:
            self._drop(guest)

    # TLS, and until it is known whose it is.

    def _advance(self) -> None:
        """Begin with whose turn it is, as far as there is room."""
        while self._ready and not self._closed and len(self._shaking) < self.limits.handshakes:
            if len(self._unknown) >= self.limits.unknown:
                if not self._idle:
                    return  # All wait for us, or have only just come.
                self._turn_away(self._idle.oldest())
            self._begin(self._ready.next())

    def _begin(self, guest: Guest) -> None:
        loop = asyncio.get_running_loop()
        self._unknown.add(guest, guest.place)
        self._shaking.add(guest)
        guest.task = loop.create_task(self._host(guest))
        self._tasks.add(guest.task)
        guest.task.add_done_callback(functools.partial(self._gone, guest))
        self._waits_for(guest)

    def _waits_for(self, guest: Guest) -> None:
        """From now on it is the other side's turn to say something."""
        loop = asyncio.get_running_loop()
        guest.stall = loop.call_later(HELD_UP_SECONDS, self._held_up, guest)

    def _held_up(self, guest: Guest) -> None:
        self._shaking.discard(guest)
        left = IDLE_SECONDS - HELD_UP_SECONDS
        guest.stall = asyncio.get_running_loop().call_later(left, self._idles, guest)
        self._advance()

    def _idles(self, guest: Guest) -> None:
        guest.stall = None
        if guest in self._unknown:
            self._idle.add(guest, guest.place)
        self._advance()

    def _said_it(self, guest: Guest) -> None:
        if guest.stall is not None:
            guest.stall.cancel()
            guest.stall = None
        self._shaking.discard(guest)
        self._idle.remove(guest)

    def _leave(self, guest: Guest) -> None:
        """It is unknown no more: known, or gone."""
        self._said_it(guest)
        self._unknown.remove(guest)
        self._advance()

    async def _host(self, guest: Guest) -> None:
        guest.hosted = True
        try:
            visit = await self._welcome(guest)
            if visit is not None:
                await self._serve(visit)
        except asyncio.CancelledError:
            # To make room, or at the end: nobody waits for this task's result.
            if guest.task is not None:
                guest.task.uncancel()

    def _gone(self, guest: Guest, task: asyncio.Task[None]) -> None:
        if not guest.hosted:  # It had to make room before its task began.
            guest.sock.close()
        if guest.known:
            self._known -= 1
        self._tasks.discard(task)
        self._leave(guest)

    async def _welcome(self, guest: Guest) -> Visit | None:
        """The connection once TLS stands; None where that does not come about."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=UNKNOWN_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        context, sock = self._context, guest.sock
        seconds = None if context is None else HANDSHAKE_SECONDS
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=context, ssl_handshake_timeout=seconds
            )
        except (OSError, TimeoutError) as error:
            log.debug("no TLS with %s: %r", guest.place, error)
            return None
        self._said_it(guest)
        self._advance()
        return Visit(self, guest, reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def _admit(self, guest: Guest) -> bool:
        if self._known >= self.limits.known:
            log.warning("a worker has to wait: %d connections are open", self._known)
            return False
        self._known += 1
        guest.known = True
        self._leave(guest)
        with contextlib.suppress(OSError):
            size = KNOWN_BUFFER_BYTES
            guest.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        return True


def _client_hello(said: bytes) -> int | None:
    """How many bytes TLS begins with, as far as is known; None where it is no TLS."""
    if said[:1] != HANDSHAKE[:1] or len(said) < 5:
        return 5 if HANDSHAKE.startswith(said[:1]) else None
    return min(5 + int.from_bytes(said[3:5]), RECORD_BYTES)


class Visit:
    """One connection as the service has it: what to read from and to write to, and its standing."""

    def __init__(
        self, door: Door, guest: Guest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._door, self._guest = door, guest
        self.reader, self.writer = reader, writer
        self.place = guest.place

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While the other side is to say something: it may have to make room meanwhile."""
        if self._guest.known:
            yield
            return
        self._door._waits_for(self._guest)
        try:
            yield
        finally:
            self._door._said_it(self._guest)

    @property
    def known(self) -> bool:
        return self._guest.known

    def admitted(self) -> bool:
        """It is known whose it is; whether there is room for it."""
        return self._door._admit(self._guest)
