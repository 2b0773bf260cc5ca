"""Computations that take long, in threads beside the loop.

A thread that computes takes the interpreter's lock from the loop for a few milliseconds at a time.
So no more than a few do at once, whatever the number of pools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

STARTS = 2
DECISIONS = 1


class Aside:
    """Where pools have their schedules' work done."""

    def __init__(self) -> None:
        self._starts = asyncio.Semaphore(STARTS)
        self._decisions = asyncio.Semaphore(DECISIONS)

    async def start(self, work: Callable[[], T]) -> T:
        """What begins a pool; it may take minutes.

        Raises:
            Exception: whatever the work raises.
        """
        async with self._starts:
            return await asyncio.to_thread(work)

    async def decide(self, work: Callable[[], T]) -> T:
        """One decision of a schedule; it does not wait for a pool to begin.

        Raises:
            Exception: whatever the work raises.
        """
        async with self._decisions:
            return await asyncio.to_thread(work)
