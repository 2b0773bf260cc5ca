"""The work queue: keys, each at most once in it, never worked on twice at a time.

Between what notices a change (handlers, informer, coordinator, timers) and the controller. A key
that is added while it is worked on is worked on again afterwards. A failure brings the key back
after a growing, jittered pause. Knows nothing of what a key stands for.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Key = TypeVar("Key")


class WorkQueue(Generic[Key]):
    """A coalescing queue with delayed additions and back-off."""

    def __init__(
        self,
        *,
        first_pause: float = 0.5,
        longest_pause: float = 60.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._jitter = jitter

    def __len__(self) -> int:
        """Keys that wait to be worked on now."""
        return len(self._queued) + len(self._again)

    @property
    def oldest_age(self) -> float:
        """Seconds that the longest waiting of them has waited; 0 where none waits."""
        since = min((*self._queued.values(), *self._again.values()), default=None)
        return 0.0 if since is None else time.monotonic() - since

    def add(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._busy:
            self._again.setdefault(key, time.monotonic())
        elif key not in self._queued:
            self._queued[key] = time.monotonic()
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Adds the key later; the earliest of several times counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, seconds)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)

    def forget(self, key: Key) -> None:
        """Drops what is remembered of a key that is gone."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def work(self, handle: Callable[[Key], Awaitable[float | None]]) -> None:
        """Works until cancelled; run several at once. `handle` gives seconds to the next look."""
        while True:
            key = await self._ready.get()
            self._queued.pop(key, None)
            self._busy.add(key)
            try:
                after = await handle(key)
            except Exception as error:  # noqa: BLE001
                # Whatever goes wrong with one job must neither stop the others nor be lost.
                self._failed(key, error)
            else:
                self._failures.pop(key, None)
                if after is not None:
                    self.add_after(key, after)
            finally:
                self._busy.discard(key)
                since = self._again.pop(key, None)
                if since is not None:
                    self.add(key)
                    self._queued[key] = since  # its wait began when it was asked for

    def _fire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _failed(self, key: Key, error: Exception) -> None:
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        pause = min(self._longest_pause, self._first_pause * 2 ** min(count, 16))
        pause *= 0.75 + 0.5 * self._jitter()
        log.warning("work on %s failed, next try in %.1f s: %s", key, pause, error, exc_info=error)
        self.add_after(key, pause)
