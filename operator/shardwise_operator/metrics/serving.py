"""/metrics: to those who may read it, and made once a second however often it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

FRESH_SECONDS = 1.0
REASONS = {
    401: "a bearer token that this cluster knows is needed\n",
    403: "the token's owner may not get the path /metrics: bind the metrics-reader ClusterRole\n",
    429: "too many unknown tokens; try again\n",
    503: "the API server could not be asked who this is; try again\n",
}


class Fresh:
    """What a slow call gave, for as long as it is fresh."""

    def __init__(self, make: Callable[[], bytes], monotonic: Callable[[], float]) -> None:
        self._make = make
        self._monotonic = monotonic
        self._made = b""
        self._until: float | None = None

    def __call__(self) -> bytes:
        if self._until is None or self._monotonic() >= self._until:
            self._made = self._make()
            # From its end: one that takes long is not made all the time.
            self._until = self._monotonic() + FRESH_SECONDS
        return self._made


def application(
    exposition: Callable[[], bytes],
    access: Callable[[str], Awaitable[int]] | None,
    monotonic: Callable[[], float],
) -> web.Application:
    """The aiohttp application.

    Args:
        access: gives the HTTP status for an Authorization header; None lets everybody read.
    """
    fresh = Fresh(exposition, monotonic)

    async def metrics(request: web.Request) -> web.Response:
        status = 200
        if access is not None:
            status = await access(request.headers.get("Authorization", ""))
        if status != 200:
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            return web.Response(status=status, text=REASONS[status], headers=headers)
        return web.Response(
            body=fresh(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app
