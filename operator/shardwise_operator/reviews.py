"""Whose token it is, asked of the API server as seldom as can be.

Anybody who reaches the coordinator may show tokens. So a verdict is kept for a while, good or bad,
by the token's hash; one token is asked for once at a time; places take turns, and one whose tokens
turn out to be nobody's soon asks for few a second. The API server gets a bounded number at once and
a second, and an honest worker waits for no other place's flood.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shardwise.coordinator.budget import Meter
from shardwise.coordinator.crowd import Crowd

GOOD_SECONDS = 30.0
"""How long a good verdict is kept. The pod that it names is looked for each time nevertheless."""
BAD_SECONDS = 10.0
KEPT = 4096
"""Verdicts of each kind. Bad ones never push a good one out."""
AT_ONCE = 16
RATE = (200.0, 400.0)
"""Reviews a second, and at once after a pause."""
PLACE_RATE = (10.0, 300.0)
"""The same for one place, good ones not counted: 200 workers of one node may begin at once."""
LONGEST_SECONDS = 5.0
"""That a place may have to wait; beyond, its workers are to come again."""
PLACES = 4096

Review = Callable[[str], Awaitable[Mapping[str, Any]]]


class TooManyReviews(Exception):  # noqa: N818 - an event
    """No verdict now: too many tokens of this place were nobody's."""


@dataclass(eq=False, slots=True)
class _Ticket:
    token: str
    key: bytes
    place: str
    verdict: asyncio.Future[Mapping[str, Any]]


class Reviews:
    """The verdicts on tokens.

    Args:
        review: asks the API server; gives the status of a TokenReview.
        clock: seconds that never go back.
    """

    def __init__(self, review: Review, clock: Callable[[], float] = time.monotonic) -> None:
        self._review, self._clock = review, clock
        self._good: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._bad: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Future[Mapping[str, Any]]] = {}
        self._waiting: Crowd[_Ticket] = Crowd()
        self._running: set[asyncio.Task[None]] = set()
        self._rate = Meter(*RATE)
        self._places: OrderedDict[str, Meter] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def status(self, token: str, place: str) -> Mapping[str, Any]:
        """The status of the token's review.

        Raises:
            TooManyReviews: the place has asked for too many that were nobody's.
            ApiError: the API server could not be asked.
        """
        key = hashlib.sha256(token.encode()).digest()
        kept = self._kept(key)
        if kept is not None:
            return kept
        asked = self._asked.get(key)
        if asked is None:
            wait = self._wait(place)
            asked = self._asked[key] = asyncio.get_running_loop().create_future()
            # Whoever asked may not be there any more, when it fails.
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            ticket = _Ticket(token, key, place, asked)
            if wait > 0:
                asyncio.get_running_loop().call_later(wait, self._queue, ticket)
            else:
                self._queue(ticket)
        return await asyncio.shield(asked)

    def close(self) -> None:
        """Ask nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._running:
            task.remove_done_callback(self._done)
            task.cancel()

    def _kept(self, key: bytes) -> Mapping[str, Any] | None:
        now = self._clock()
        for kept in (self._good, self._bad):
            until, status = kept.get(key, (0.0, {}))
            if now < until:
                return status
            kept.pop(key, None)
        return None

    def _wait(self, place: str) -> float:
        """Count a review against its place; the seconds until it may be asked for."""
        meter = self._places.get(place)
        if meter is None:
            meter = self._places[place] = Meter(*PLACE_RATE)
            if len(self._places) > PLACES:
                self._places.popitem(last=False)
        self._places.move_to_end(place)
        now = self._clock()
        if meter.charge(0, now) > LONGEST_SECONDS:
            raise TooManyReviews(f"too many tokens that {place} has shown were nobody's")
        return meter.charge(1, now)

    def _queue(self, ticket: _Ticket) -> None:
        self._waiting.add(ticket, ticket.place)
        self._advance()

    def _advance(self) -> None:
        self._timer = None
        while self._waiting and len(self._running) < AT_ONCE and self._timer is None:
            owed = self._rate.charge(0, self._clock())
            if owed > 0:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(owed, self._advance)
                return
            self._rate.charge(1, self._clock())
            task = asyncio.get_running_loop().create_task(self._ask(self._waiting.next()))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._timer is None and not task.cancelled():  # Cancelled: this process ends.
            self._advance()

    async def _ask(self, ticket: _Ticket) -> None:
        try:
            status = await self._review(ticket.token)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is for whoever waits for the verdict.
            self._refund(ticket)
            ticket.verdict.set_exception(error)
        else:
            good = bool(status.get("authenticated"))
            self._keep(ticket.key, status, good)
            if good:
                self._refund(ticket)
            ticket.verdict.set_result(status)
        finally:
            del self._asked[ticket.key]
            if not ticket.verdict.done():
                ticket.verdict.cancel()

    def _keep(self, key: bytes, status: Mapping[str, Any], good: bool) -> None:
        kept, seconds = (self._good, GOOD_SECONDS) if good else (self._bad, BAD_SECONDS)
        # Of nobody's token nothing more has to be known.
        kept[key] = (self._clock() + seconds, status if good else {"authenticated": False})
        if len(kept) > KEPT:
            kept.popitem(last=False)

    def _refund(self, ticket: _Ticket) -> None:
        meter = self._places.get(ticket.place)
        if meter is not None:
            meter.charge(-1, self._clock())
