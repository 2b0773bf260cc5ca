"""An HTTP server for strangers: connections that ask for nothing are few, and do not stay.

The newest is served: where too many have not asked yet, the oldest of them is closed. Whoever is
answered with anything but 200 is hung up on.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

WAITING = 128
"""Connections that have not asked for anything yet."""
ASK_SECONDS = 5.0
IDLE_SECONDS = 75.0
STOP_SECONDS = 2.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """One application on one port, once started; `stop` ends it."""

    def __init__(self, app: web.Application) -> None:
        app.middlewares.append(self._asked)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=1.0,
            shutdown_timeout=STOP_SECONDS,
        )
        self._waiting: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def port(self) -> int:
        """Where it listens; port 0 is any."""
        assert self._server is not None, "it has been started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(
        self, port: int, tls: ssl.SSLContext | None = None, host: str | None = None
    ) -> None:
        """Raises OSError where the port is taken."""
        await self._runner.setup()
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(
            self._accept,
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=ASK_SECONDS if tls else None,
        )

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.Protocol:
        assert self._runner.server is not None and self._loop is not None
        handler = self._runner.server()
        if len(self._waiting) >= WAITING:
            self._close(next(iter(self._waiting)))
        self._waiting[handler] = self._loop.call_later(ASK_SECONDS, self._close, handler)
        return handler

    def _close(self, handler: web.RequestHandler) -> None:
        self._waiting.pop(handler).cancel()
        handler.force_close()

    @web.middleware
    async def _asked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        timer = self._waiting.pop(request.protocol, None)
        if timer is not None:
            timer.cancel()
        try:
            response = await handler(request)
        except web.HTTPException as refused:
            refused.force_close()
            raise
        if response.status != web.HTTPOk.status_code:
            response.force_close()
        return response
