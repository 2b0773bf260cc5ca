"""A pool as the service has it: connections that wait for work, and hands for what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from shardwise.coordinator import pool_report
from shardwise.coordinator.connection import Connection
from shardwise.coordinator.pool import Pool
from shardwise.coordinator.pool_actions import Close, Dismiss, Open, Place, Release, Resize
from shardwise.coordinator.protocol import Bye, Hello, Stop
from shardwise.coordinator.report import Assignment, TaskReport

log = logging.getLogger(__name__)


class Groups(Protocol):
    """The groups of the tasks under way."""

    def open_group(self, assignment: Assignment, pool: HostedPool) -> None: ...

    def resize_task(self, task: str, workers: int, min_workers: int) -> None: ...

    def release_worker(self, task: str, worker: str) -> None: ...

    def stop_group(self, task: str, reason: str, message: str) -> None: ...

    def now(self) -> float: ...


class HostedPool:
    """One pool. Everything is for the loop's thread.

    Args:
        groups: opens, changes and closes the groups of tasks.
        on_change: called whenever the pool may tell something new.
    """

    def __init__(self, pool: Pool, groups: Groups, on_change: Callable[[], None]) -> None:
        self.pool, self._groups, self._on_change = pool, groups, on_change
        self._waiting: dict[str, asyncio.Future[str | None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def place(self, hello: Hello, connection: Connection) -> str | None:
        """The task that this worker is for, waited for; None where it has none any more.

        It was told then, if it is still there.
        """
        pool, worker, now = self.pool, hello.worker, self._groups.now()
        for ended in hello.finished:
            pool.told(ended.task, ended.result, now)
        if hello.task:
            back = pool.returned(worker, hello.task, now)
            self.act()
            if not back:
                # That task has ended without it; it comes again for another one.
                connection.send(Bye())
            return hello.task if back else None
        former = self._waiting.pop(worker, None)
        if former is not None:
            former.cancel()
        placed: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[worker] = placed
        pool.came(worker, hello.index, hello.last_end, now)
        self.act()
        return await self._placed(worker, placed, connection)

    async def _placed(
        self, worker: str, placed: asyncio.Future[str | None], connection: Connection
    ) -> str | None:
        # A worker says nothing while it waits: what comes is the end of its connection.
        ended = asyncio.create_task(connection.receive())
        try:
            either: set[asyncio.Future[Any]] = {placed, ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            await asyncio.wait({ended})
        if placed.cancelled():
            return None
        if not ended.cancelled():
            log.info("%s does not wait any more: %r", worker, ended.exception())
            self.gone(worker, placed.result() if placed.done() else None)
            return None
        task = placed.result()
        if task is None:
            connection.send(Bye())
        return task

    def gone(self, worker: str, task: str | None) -> None:
        """A worker is not at this task any more, or does not wait any more (None)."""
        if task is None:
            placed = self._waiting.pop(worker, None)
            if placed is not None:
                placed.cancel()
        self.pool.gone(worker, task, self._groups.now())
        self.act()

    def progressed(self, task: str, report: TaskReport) -> None:
        """The group of a task has news."""
        self.pool.progressed(task, report)
        self.act()

    def ended(self, task: str, report: TaskReport) -> None:
        """The group of a task has ended."""
        now = self._groups.now()
        self.pool.progressed(task, report)
        if report.failure is not None:
            self.pool.failed(task, report.failure, now)
        else:
            self.pool.finished(task, report.result or {}, now)
        self.act()

    def report(self, connected: Iterable[str]) -> TaskReport:
        there = {*connected, *self._waiting}
        return pool_report.report(self.pool, there, self._groups.now())

    def resize(self, workers: int) -> None:
        self.pool.resize(workers)
        self.act()

    def drain(self, reason: str) -> None:
        self.pool.drain(reason)
        self.act()

    def close(self) -> None:
        """Let everybody go that waits."""
        if self._timer is not None:
            self._timer.cancel()
        for placed in self._waiting.values():
            placed.cancel()
        self._waiting.clear()

    def act(self) -> None:
        """Do what the pool says."""
        for action in self.pool.settle(self._groups.now()):
            match action:
                case Open(assignment=assignment, adopt=adopt):
                    floor = 1 if adopt else 0
                    self._groups.open_group(replace(assignment, generation_floor=floor), self)
                case Place(worker=worker, task=task):
                    self._resolve(worker, task)
                case Dismiss(worker=worker):
                    self._resolve(worker, None)
                case Resize(task=task, workers=workers):
                    self._groups.resize_task(task, workers, 1)
                case Release(task=task, worker=worker):
                    self._groups.release_worker(task, worker)
                case Close(task=task, reason=reason, message=message):
                    self._groups.stop_group(task, reason, message)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.pool.next_deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self.act)
        self._on_change()

    def _resolve(self, worker: str, task: str | None) -> None:
        placed = self._waiting.pop(worker, None)
        if placed is not None and not placed.done():
            placed.set_result(task)


def stop_again(stop: Stop) -> Stop:
    """For a worker of a pool: its task is over, and there may be others."""
    return replace(stop, again=True)
