"""Probes: /healthz tells the truth about this process, /readyz what it still waits for.

Healthy means: the watch has heard of the API server lately, and the loop keeps up. A process that
merely answers is not healthy. Reads state; changes none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import web

WATCH_AGE_LIMIT = 300.0
LOOP_LAG_LIMIT = 10.0
BEAT_SECONDS = 1.0
REMEMBERED_BEATS = 60


class LoopLag:
    """How late the loop wakes its sleepers: the longest delay of the last minute."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque([0.0], maxlen=REMEMBERED_BEATS)

    @property
    def seconds(self) -> float:
        return max(self._lags)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._lags.append(max(0.0, loop.time() - due))


def problems(watch_age: float, loop_lag: float) -> tuple[str, ...]:
    """Why this process should be restarted; empty while it is well."""
    found = []
    if watch_age > WATCH_AGE_LIMIT:
        found.append(
            f"the pod watch has heard nothing for {watch_age:.0f} s (limit {WATCH_AGE_LIMIT:.0f} s)"
        )
    if loop_lag > LOOP_LAG_LIMIT:
        found.append(f"the event loop was {loop_lag:.1f} s late (limit {LOOP_LAG_LIMIT:.0f} s)")
    return tuple(found)


def probes(
    *,
    watch_age: Callable[[], float],
    loop_lag: Callable[[], float],
    unready: Callable[[], tuple[str, ...]],
) -> web.Application:
    """/healthz and /readyz; `unready` names what is still missing."""

    def _answer(found: tuple[str, ...], status: int) -> web.Response:
        text = "".join(f"{line}\n" for line in found) or "ok\n"
        response = web.Response(text=text, status=status if found else 200)
        response.force_close()  # Anybody may ask; nobody keeps a connection by it.
        return response

    async def healthz(_: web.Request) -> web.Response:
        return _answer(problems(watch_age(), loop_lag()), 500)

    async def readyz(_: web.Request) -> web.Response:
        return _answer(unready(), 503)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app
