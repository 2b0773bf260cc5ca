"""The HTTP session that kopf watches jobs through: no object can end its reader.

kopf reads lists and watches with the standard parser, which raises RecursionError at an object
that is nested 1,000 deep, and each such error ends the operator, at each start again. So its
session reads everything through `wire` first: what lies too deep is cut, what cannot be read is
passed over and counted, and a watch that the server breaks off is listed again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import kopf

from shardwise_operator import names, wire
from shardwise_operator.kube import USER_AGENT

log = logging.getLogger(__name__)

Count = Callable[[str, str], None]


class Feed:
    """What is known of the watch of jobs.

    Args:
        count: called for each call with its verb and its status.
        lists: how many lists there are to be read first: one for each namespace.
    """

    def __init__(
        self, count: Count, lists: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.count = count
        self.synced = asyncio.Event()
        self._left = lists
        self._clock = clock
        self._contact = clock()

    @property
    def age(self) -> float:
        """Seconds since the API server was last heard of."""
        return self._clock() - self._contact

    def heard(self) -> None:
        self._contact = self._clock()

    def listed(self, *, complete: bool) -> None:
        """A page of the jobs of a namespace has been read."""
        self.heard()
        if complete:
            self._left -= 1
        if self._left <= 0:
            self.synced.set()


class _Events:
    """The body of a watch: kopf takes `iter_chunked`, all else is the stream's own."""

    def __init__(self, content: aiohttp.StreamReader, feed: Feed) -> None:
        self._content, self._feed = content, feed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        del size
        async for line in wire.lines(self._content):
            self._feed.heard()
            if not line.strip():
                continue
            try:
                event = wire.watch_event(line)
            except ValueError as error:
                self._feed.count("watch", "unreadable")
                log.warning("%s: an event is passed over: %s", names.PLURAL, error)
                continue
            yield event + b"\n"


def session(found: kopf.ConnectionInfo, feed: Feed) -> kopf.AiohttpSession:
    """The session for these credentials; kopf closes it, and asks for another when they expire."""

    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            started = await super().start(connection)
            watch = "watch" in self.url.query
            feed.count("watch" if watch else "list", str(self.status))
            if watch and self.status < 300:
                content: Any = _Events(self.content, feed)
                self.content = content
            return started

        async def json(self, **_: Any) -> Any:
            data = await self.read()
            try:
                try:
                    value = wire.read(data)
                except ValueError:  # Beside the event loop, which has others to serve.
                    value = await asyncio.to_thread(wire.read, data, tokens=None)
            except ValueError as error:
                feed.count("list", "unreadable")
                raise aiohttp.ClientPayloadError(f"{self.url.path}: {error}") from error
            if self.status < 300 and self.url.path.endswith(f"/{names.PLURAL}"):
                more = isinstance(value, dict) and (value.get("metadata") or {}).get("continue")
                feed.listed(complete=not more)
            return value

    return kopf.AiohttpSession(
        server=found.server,
        default_namespace=found.default_namespace,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=found.as_ssl_context()),
            headers={**found.as_http_headers(), "User-Agent": USER_AGENT},
            response_class=Response,
            proxy=found.proxy_url,
            trust_env=found.trust_env,
        ),
    )
