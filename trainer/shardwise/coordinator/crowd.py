"""Who waits at the door, by where they come from: whose turn is next, and who has to make room.

Places take turns, and within a place whoever came first: so a thousand connections of one place
hold those of another up by one. Room is made by the place that has most in here. Pure.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Crowd(Generic[T]):
    """Items, each of a place."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._place_of: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._place_of)

    def __contains__(self, item: T) -> bool:
        return item in self._place_of

    def __iter__(self) -> Iterator[T]:
        return iter(self._place_of)

    def add(self, item: T, place: str) -> None:
        """An item comes, as the last of its place."""
        self._place_of[item] = place
        self._places.setdefault(place, OrderedDict())[item] = None

    def remove(self, item: T) -> None:
        """An item goes; nothing happens where it is not here."""
        place = self._place_of.pop(item, None)
        if place is not None:
            items = self._places[place]
            del items[item]
            if not items:
                del self._places[place]

    def next(self) -> T:
        """Take the item whose turn it is.

        Raises:
            KeyError: nobody is here.
        """
        place = next(iter(self._places), None)
        if place is None:
            raise KeyError("nobody waits")
        item = next(iter(self._places[place]))
        self.remove(item)
        if place in self._places:
            self._places.move_to_end(place)
        return item

    def oldest(self) -> T:
        """Of the place that has most in here, who came first.

        Raises:
            ValueError: nobody is here.
        """
        return next(iter(self._largest()))

    def newest(self) -> T:
        """Of the place that has most in here, who came last.

        Raises:
            ValueError: nobody is here.
        """
        return next(reversed(self._largest()))

    def _largest(self) -> OrderedDict[T, None]:
        return max(self._places.values(), key=lambda items: len(items))


def place(address: object) -> str:
    """Where a connection comes from: its IPv4 address, or its IPv6 network of 64 bits, which one
    machine may have all addresses of.

    Args:
        address: as a socket gives it: the host first, then the port.
    """
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(found) >> 64 << 64)}/64"
