"""The group of one generation over sockets of its own: proven peers, transfers by tag.

The training thread does the sending and receiving itself, while it waits for any transfer: there is
no thread to wake, and a wait ends the moment the group is given up. Where peers listen is told
over the control connection.
"""

from __future__ import annotations

import ipaddress
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from shardwise.coordinator.protocol import KeyValue
from shardwise.engine.group import GroupError
from shardwise.worker.frames import frames
from shardwise.worker.handshake import Self
from shardwise.worker.link import Link, Transfer
from shardwise.worker.meeting import Address, Meeting, listen


class Rendezvous(Protocol):
    """What a group needs of the control connection."""

    def send(self, message: KeyValue) -> bool: ...

    def wait_value(self, generation: int, key: str, timeout: float) -> bytes:
        """A value that a member has sent.

        Raises:
            TimeoutError: it has not.
        """
        ...


class PeerTransfer:
    """A transfer under way, as the engine waits for it."""

    __slots__ = ("_group", "_transfer")

    def __init__(self, group: PeerGroup, transfer: Transfer) -> None:
        self._group, self._transfer = group, transfer

    def wait(self) -> None:
        self._group.finish(self._transfer)


class PeerGroup:
    """A group over connections whose both ends have proven that they are of the generation.

    For one thread, but for `abort`.

    Args:
        me: this member.
        address: where peers reach it.
        before_wait: called before each wait for a transfer.
    """

    def __init__(self, me: Self, *, address: str, before_wait: Callable[[], None]) -> None:
        self.rank, self.size = me.rank, me.size
        self._me, self._address, self._before_wait = me, address, before_wait
        self._lock = threading.Lock()
        self._links: dict[int, Link] = {}
        self._by_descriptor: dict[int, Link] = {}
        self._polled: dict[int, int] = {}
        self._poll = select.poll()
        self._given_up = self._closed = False
        self._wake, self._waker = os.pipe()
        self._poll.register(self._wake, select.POLLIN)

    def connect(self, rendezvous: Rendezvous, seconds: float) -> None:
        """Connect to all others.

        Args:
            seconds: for the exchange of addresses and the connections.

        Raises:
            GroupError: not all came in time, or the group was given up.
            Whatever `wait_value` raises, but for a TimeoutError.
        """
        me, deadline = self._me, time.monotonic() + seconds
        what = f"generation {me.generation} could not connect"
        try:
            listener = listen(self._address) if me.rank < me.size - 1 else None
        except OSError as error:
            raise GroupError(f"{what}: cannot listen at {self._address}: {error}") from error
        meeting = Meeting(me, listener, self._wake)
        try:
            if listener is not None:
                host, port = listener.getsockname()[:2]
                told = f"{host} {port}".encode()
                message = KeyValue(generation=me.generation, key=_key(me.rank), value=told)
                rendezvous.send(message)
            # The next one below first, so that all listen to somebody at once.
            for peer in reversed(range(me.rank)):
                left = max(0.0, deadline - time.monotonic())
                value = rendezvous.wait_value(me.generation, _key(peer), left)
                meeting.call(peer, _address(value))
            met = meeting.run(max(0.0, deadline - time.monotonic()), lambda: self._given_up)
        except TimeoutError as error:
            raise GroupError(f"{what}: {error}") from error
        finally:
            meeting.close()
        with self._lock:
            for peer, each in met.items():
                keys = each.keys
                mine, theirs = keys.to_listener, keys.to_connector
                if peer > me.rank:
                    mine, theirs = theirs, mine
                link = Link(each.connection, peer, frames(me.protection, mine, theirs))
                self._links[peer] = link
                self._by_descriptor[each.connection.fileno()] = link
                self._watch(link)

    def send(self, tensor: Tensor, to: int, tag: int) -> PeerTransfer:
        link = self._links[to]
        transfer = link.send(tensor, tag)
        self._watch(link)
        return PeerTransfer(self, transfer)

    def receive(self, tensor: Tensor, source: int, tag: int) -> PeerTransfer:
        link = self._links[source]
        transfer = link.receive(tensor, tag)
        self._watch(link)
        return PeerTransfer(self, transfer)

    def finish(self, transfer: Transfer) -> None:
        """Return once the transfer is complete; all others go on meanwhile.

        Raises:
            GroupError: its peer is gone, or the group is given up.
        """
        self._before_wait()
        while True:
            if self._given_up:
                raise GroupError("a transfer failed: the group is given up", transfer.link.peer)
            if transfer.done:
                return
            link = transfer.link
            if link.broken:
                raise GroupError(f"a transfer failed: {link.broken}", link.peer)
            for descriptor, events in self._poll.poll():
                self._turn(descriptor, events)

    def abort(self) -> None:
        """End the wait under way, and every one that follows, from any thread."""
        with self._lock:
            if self._closed:
                return
            self._given_up = True
            for link in self._links.values():
                link.shut_down()
            os.write(self._waker, b"!")

    def close(self) -> None:
        """The group is over: from now on nothing touches any tensor that was sent or received."""
        with self._lock:
            if self._closed:
                return
            self._closed = self._given_up = True
            for link in self._links.values():
                link.close()
            os.close(self._wake)
            os.close(self._waker)

    def _turn(self, descriptor: int, events: int) -> None:
        link = self._by_descriptor.get(descriptor)
        if link is None:
            return  # the wake, whose reason the next turn of the loop sees
        if events & ~select.POLLOUT:
            link.read()
        if events & ~select.POLLIN:
            link.write()
        self._watch(link)

    def _watch(self, link: Link) -> None:
        """Poll for what the link needs now.

        One that needs nothing is not polled: an end is always told, again and again.
        """
        descriptor, events = link.socket.fileno(), link.events
        before = self._polled.get(descriptor, 0)
        if events == before:
            return
        if not events:
            self._poll.unregister(descriptor)
        elif not before:
            self._poll.register(descriptor, events)
        else:
            self._poll.modify(descriptor, events)
        self._polled[descriptor] = events


def _key(rank: int) -> str:
    return f"address/{rank}"


def _address(value: bytes) -> Address:
    """Where a peer listens, as it has told.

    Raises:
        GroupError: it has told something else.
    """
    host, _, port = value.decode("ascii", "replace").rpartition(" ")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 16:
        raise GroupError(f"no address: {value[:100]!r}")
    return host, number
