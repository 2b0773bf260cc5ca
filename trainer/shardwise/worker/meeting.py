"""How the members of a generation find each other: who connects to whom, and who is let in.

The higher rank of each two connects to the lower one, which listens until all have come and then
no more. Whoever reaches that port in the meantime is a stranger until the handshake is over: at
most PENDING of them are held, for at most PENDING_SECONDS each, a few bytes are read of each, and
the one that has been silent for longest makes room for the next. A member that was turned
away in a crowd comes again.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shardwise.engine.group import GroupError
from shardwise.worker.handshake import (
    ANSWER_BYTES,
    KNOCK_BYTES,
    NONCE_BYTES,
    PROOF_BYTES,
    Connector,
    HandshakeError,
    Keys,
    Listener,
    Self,
)

PENDING = 64
"""Connections that have not proven anything."""
PENDING_SECONDS = 2.0
ACCEPTS = 64
"""At a time, before those that are known have their turn."""
BACKLOG = 4096
AGAIN_SECONDS = 0.02
"""Between two attempts to reach a peer."""
ANSWER_SECONDS = 0.5
"""For a peer to answer, before it is tried again: in a crowd of strangers packets are dropped."""

Address = tuple[str, int]


@dataclass(slots=True, kw_only=True)
class Met:
    """A peer that has proven itself."""

    connection: socket.socket
    keys: Keys = field(repr=False)


def listen(host: str) -> socket.socket:
    """A socket that peers can connect to; IPv4 or IPv6, as the host is.

    Raises:
        OSError: the address is none of this machine.
    """
    family, kind, number, _, address = socket.getaddrinfo(
        host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


@dataclass(slots=True)
class _Arrival:
    """Somebody has connected."""

    connection: socket.socket
    listener: Listener
    until: float
    wanted: int = KNOCK_BYTES
    said: bytes = b""

    @property
    def knows(self) -> bool:
        """Whether its knock was right, be it a replayed one."""
        return self.wanted != KNOCK_BYTES


@dataclass(slots=True)
class _Call:
    """A peer that is being connected to."""

    peer: int
    address: Address
    due: float
    """When the next attempt is to begin, or the present one is over."""
    connection: socket.socket | None = None
    connector: Connector | None = None
    said: bytes = b""
    failed: str = "it does not answer"


class Meeting:
    """One member's connections to all others, as they come about.

    Args:
        me: this member.
        listener: what `listen` gave; None for the highest rank.
        wake: a descriptor that is readable once the meeting is given up.
    """

    def __init__(self, me: Self, listener: socket.socket | None, wake: int) -> None:
        self._me, self._listener = me, listener
        self._met: dict[int, Met] = {}
        self._arrivals: dict[int, _Arrival] = {}
        self._calls: dict[int, _Call] = {}
        self._poll = select.poll()
        self._wake = wake
        self._poll.register(wake, select.POLLIN)
        if listener is not None:
            self._poll.register(listener, select.POLLIN)

    def call(self, peer: int, address: Address) -> None:
        """Connect to a peer of a lower rank."""
        call = self._calls[peer] = _Call(peer, address, time.monotonic())
        self._dial(call)

    def run(self, seconds: float, given_up: Callable[[], bool]) -> Mapping[int, Met]:
        """Return once all others are connected and proven.

        Raises:
            GroupError: some are not in time, or it was given up.
        """
        deadline = time.monotonic() + seconds
        while len(self._met) < self._me.size - 1:
            now = time.monotonic()
            self._expire(now)
            if given_up():
                raise GroupError("the group is given up")
            if now >= deadline:
                raise GroupError(self._overdue(seconds))
            self._turn(min([deadline, *self._due()]) - now)
        met, self._met = self._met, {}
        return met

    def close(self) -> None:
        """Close whatever was not given away."""
        for arrival in list(self._arrivals.values()):
            self._refuse(arrival)
        for call in self._calls.values():
            self._hang_up(call)
        for met in self._met.values():
            met.connection.close()
        if self._listener is not None:
            self._listener.close()

    def _turn(self, seconds: float) -> None:
        ready = self._poll.poll(max(0.0, seconds) * 1000)
        calls = {c.connection.fileno(): c for c in self._calls.values() if c.connection}
        for descriptor, _ in ready:
            if descriptor in calls:
                self._heard(calls[descriptor])
            elif descriptor in self._arrivals:
                self._hear(self._arrivals[descriptor])
        # After those that are known: a crowd at the door waits.
        if self._listener is not None and any(d == self._listener.fileno() for d, _ in ready):
            self._accept(self._listener)

    def _due(self) -> list[float]:
        return [
            *(arrival.until for arrival in self._arrivals.values()),
            *(call.due for call in self._calls.values()),
        ]

    def _expire(self, now: float) -> None:
        for arrival in [a for a in self._arrivals.values() if now >= a.until]:
            self._refuse(arrival)
        for call in [c for c in self._calls.values() if now >= c.due]:
            self._hang_up(call)
            self._dial(call)

    def _overdue(self, seconds: float) -> str:
        missing = [r for r in range(self._me.size) if r != self._me.rank and r not in self._met]
        why = "; ".join(f"rank {c.peer}: {c.failed}" for c in self._calls.values())
        ranks = ", ".join(map(str, missing))
        return (
            f"generation {self._me.generation} could not connect within {seconds:.0f} s to "
            f"rank {ranks}" + (f" ({why})" if why else "")
        )

    def _have(self, peer: int, connection: socket.socket, keys: Keys) -> None:
        self._poll.unregister(connection)
        self._met[peer] = Met(connection=connection, keys=keys)

    # Those that come.

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    continue  # it has gone already
                if not self._arrivals:
                    raise GroupError(f"nobody can be let in: {error}") from error
                self._make_room(len(self._arrivals) - 1)
                return
            self._make_room(PENDING - 1)
            connection.setblocking(False)
            listening = Listener(self._me, os.urandom(NONCE_BYTES))
            arrival = _Arrival(connection, listening, time.monotonic() + PENDING_SECONDS)
            self._arrivals[connection.fileno()] = arrival
            self._poll.register(connection, select.POLLIN)
            self._hear(arrival)

    def _make_room(self, room: int) -> None:
        while len(self._arrivals) > room:
            arrivals = self._arrivals.values()
            self._refuse(next((a for a in arrivals if not a.knows), next(iter(arrivals))))

    def _hear(self, arrival: _Arrival) -> None:
        """Read no more of it than is expected next."""
        connection, listener = arrival.connection, arrival.listener
        try:
            data = connection.recv(arrival.wanted - len(arrival.said))
            arrival.said += data
            if not data:
                self._refuse(arrival)
            elif len(arrival.said) < arrival.wanted:
                return
            elif not arrival.knows:
                answer = listener.answer(arrival.said)
                arrival.said, arrival.wanted = b"", PROOF_BYTES
                if connection.send(answer) != len(answer):
                    self._refuse(arrival)
            else:
                keys = listener.finish(arrival.said)
                if listener.peer in self._met:
                    raise HandshakeError(f"rank {listener.peer} is there already")
                _settle(connection)
                del self._arrivals[connection.fileno()]
                self._have(listener.peer, connection, keys)
        except BlockingIOError:
            return
        except (OSError, HandshakeError):
            self._refuse(arrival)

    def _refuse(self, arrival: _Arrival) -> None:
        self._poll.unregister(arrival.connection)
        del self._arrivals[arrival.connection.fileno()]
        arrival.connection.close()

    # Those that this member connects to.

    def _dial(self, call: _Call) -> None:
        call.due = time.monotonic() + ANSWER_SECONDS
        call.said, call.connector = b"", None
        try:
            family, kind, number, _, address = socket.getaddrinfo(
                *call.address,
                type=socket.SOCK_STREAM,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )[0]
            call.connection = socket.socket(family, kind, number)
            call.connection.setblocking(False)
            self._poll.register(call.connection, select.POLLOUT)
            call.connection.connect(address)
        except BlockingIOError:
            return
        except OSError as error:
            self._later(call, str(error))

    def _heard(self, call: _Call) -> None:
        connection = call.connection
        assert connection is not None
        try:
            if call.connector is None:
                self._knock(call, connection)
                return
            data = connection.recv(ANSWER_BYTES - len(call.said))
            call.said += data
            if not data:
                self._later(call, "it turned this worker away")
            elif len(call.said) == ANSWER_BYTES:
                proof, keys = call.connector.take(call.said)
                if connection.send(proof) != len(proof):
                    self._later(call, "it takes nothing")
                    return
                _settle(connection)
                del self._calls[call.peer]
                self._have(call.peer, connection, keys)
        except BlockingIOError:
            return
        except (OSError, HandshakeError) as error:
            self._later(call, str(error))

    def _knock(self, call: _Call, connection: socket.socket) -> None:
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._later(call, os.strerror(error))
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        call.connector = Connector(self._me, call.peer, os.urandom(NONCE_BYTES))
        self._poll.modify(connection, select.POLLIN)
        if connection.send(call.connector.knock) != KNOCK_BYTES:
            self._later(call, "it takes nothing")

    def _later(self, call: _Call, why: str) -> None:
        """Try again in a moment: who is gone for good, the coordinator tells."""
        self._hang_up(call)
        call.failed = why
        call.due = time.monotonic() + AGAIN_SECONDS

    def _hang_up(self, call: _Call) -> None:
        if call.connection is not None:
            self._poll.unregister(call.connection)
            call.connection.close()
            call.connection = None


def _settle(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
