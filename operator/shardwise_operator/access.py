"""Who may read the metrics: a bearer token that the API server knows, and whose owner may `get`
the path `/metrics`, as controller-runtime has it.

What the API server said is remembered for a while by the token's hash, so that a scrape costs no
call. Strangers' tokens share a budget of calls; one that was let in before does not draw on it, so
a flood of them keeps no Prometheus out. Where the API server cannot be asked, nobody is let in.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shardwise_operator.port import ApiError

log = logging.getLogger(__name__)

PATH = "/metrics"
ALLOWED_SECONDS = 60.0
REFUSED_SECONDS = 10.0
REMEMBERED = 1000
STRANGERS_PER_SECOND = 5.0
TOKEN_BYTES = 16384
OK, UNAUTHENTICATED, FORBIDDEN, TOO_MANY, UNKNOWN = 200, 401, 403, 429, 503


class Reviews(Protocol):
    """The API server, as far as access needs it."""

    async def review_token(self, token: str, audience: str) -> dict[str, Any]: ...

    async def review_access(self, user: Mapping[str, Any], path: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Remembered:
    status: int
    until: float


class Access:
    """Answers with an HTTP status: 200 for a token that may read."""

    def __init__(self, reviews: Reviews, monotonic: Callable[[], float]) -> None:
        self._reviews = reviews
        self._monotonic = monotonic
        self._spent_until = monotonic() - 1.0
        """The strangers' budget: behind the clock by what is saved, a second's worth at most."""
        self._answers: OrderedDict[bytes, Remembered] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[int]] = {}

    async def status(self, authorization: str) -> int:
        """For the value of the Authorization header."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_BYTES:
            return UNAUTHENTICATED
        key = hashlib.sha256(token.encode(errors="replace")).digest()
        known = self._answers.get(key)
        if known is not None and known.until > self._monotonic():
            return known.status
        task = self._asking.get(key)
        if task is None:
            if (known is None or known.status != OK) and not self._afford():
                return TOO_MANY
            task = self._asking[key] = asyncio.create_task(self._ask(key, token))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # A client that hangs up ends its own waiting, not that of others with the same token.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, token: str) -> int:
        try:
            status = await self._review(token)
        except ApiError as error:
            log.warning("who reads the metrics could not be asked: %s", error)
            return UNKNOWN
        seconds = ALLOWED_SECONDS if status == OK else REFUSED_SECONDS
        self._answers[key] = Remembered(status, self._monotonic() + seconds)
        self._answers.move_to_end(key)
        self._forget_one()
        return status

    async def _review(self, token: str) -> int:
        review = await self._reviews.review_token(token, "")
        user = review.get("user")
        if review.get("authenticated") is not True or not isinstance(user, Mapping):
            return UNAUTHENTICATED
        allowed = (await self._reviews.review_access(user, PATH)).get("allowed") is True
        return OK if allowed else FORBIDDEN

    def _afford(self) -> bool:
        now = self._monotonic()
        if self._spent_until > now:
            return False
        self._spent_until = max(self._spent_until, now - 1.0) + 1.0 / STRANGERS_PER_SECOND
        return True

    def _forget_one(self) -> None:
        """Strangers go before those that were let in."""
        if len(self._answers) <= REMEMBERED:
            return
        refused = (key for key, answer in self._answers.items() if answer.status != OK)
        self._answers.pop(next(refused, next(iter(self._answers))))
