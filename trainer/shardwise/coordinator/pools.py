"""A pool as the service has it: connections that wait for work, and hands for what it says."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from shardwise.api import conditions
from shardwise.coordinator import pool_report
from shardwise.coordinator.aside import Aside
from shardwise.coordinator.connection import Connection
from shardwise.coordinator.pool import MESSAGE_LENGTH, Pool
from shardwise.coordinator.pool_actions import (
    Close,
    Decide,
    Dismiss,
    Open,
    Place,
    Release,
    Resize,
)
from shardwise.coordinator.pool_start import Start, preparing, start, takes_long
from shardwise.coordinator.protocol import Bye, Hello, Stop
from shardwise.coordinator.report import Assignment, Failure, PoolAssignment, TaskReport

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

    What may take long is done beside it: going through the results of before, and what an adaptive
    algorithm gives next. Until the pool has begun, workers that come wait.

    Args:
        assignment: the pool's.
        groups: opens, changes and closes the groups of tasks.
        aside: does what takes long.
        on_change: called whenever the pool may tell something new.
        adoption_seconds: as `Pool` has it.

    Raises:
        ValueError: the assignment contradicts itself.
    """

    def __init__(
        self,
        assignment: PoolAssignment,
        groups: Groups,
        aside: Aside,
        on_change: Callable[[], None],
        *,
        adoption_seconds: float,
    ) -> None:
        self._assignment, self._groups, self._aside = assignment, groups, aside
        self._on_change, self._adoption_seconds = on_change, adoption_seconds
        self._pool: Pool | None = None
        self._failure: Failure | None = None
        """Why the pool cannot begin."""
        self._draining = ""
        self._begun = asyncio.Event()
        self._closed = threading.Event()
        self._coming: dict[Connection, str] = {}
        """Workers that wait for the pool to begin."""
        self._work: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[str | None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        if takes_long(assignment):
            self._work = asyncio.get_running_loop().create_task(self._start())
        else:
            self._begin(start(assignment))

    async def _start(self) -> None:
        work = functools.partial(start, self._assignment, self._closed.is_set)
        try:
            begins = await self._aside.start(work)
        except Exception as error:  # Of Optuna, or a spec that it refuses: the job is to tell.
            log.exception("the tasks of %s cannot begin", self._assignment.name)
            self._failure = _undecidable(error)
            self._begun.set()
            self._on_change()
        else:
            self._begin(begins)

    def _begin(self, begins: Start) -> None:
        self._pool = Pool(
            self._assignment,
            self._groups.now(),
            adoption_seconds=self._adoption_seconds,
            begins=begins,
        )
        if self._draining:
            self._pool.drain(self._draining)
        self._begun.set()
        self.act()

    async def _decide(self, pool: Pool) -> None:
        try:
            await self._aside.decide(pool.schedule.decide)
        except Exception as error:
            log.exception("%s cannot go on", self._assignment.name)
            pool.decided(_undecidable(error))
        else:
            pool.decided()
        self.act()

    async def place(self, hello: Hello, connection: Connection) -> str | None:
        """The task that this worker is for, waited for; None where it has none any more.

        It was told then, if it is still there.
        """
        if self._pool is None and not await self._until_begun(hello, connection):
            return None
        pool, worker, now = self._pool, hello.worker, self._groups.now()
        if pool is None or self._closed.is_set():
            return None
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

    async def _until_begun(self, hello: Hello, connection: Connection) -> bool:
        """Wait for the pool to begin; whether the worker is still there."""
        self._coming[connection] = hello.worker
        self._on_change()
        waits: set[asyncio.Task[Any]] = {asyncio.create_task(self._begun.wait())}
        if not hello.task:
            # It says nothing while it waits; what one at a task says is for its group.
            waits.add(asyncio.create_task(connection.receive()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._coming[connection]
            for each in waits:
                each.cancel()
            await asyncio.wait(waits)
            broken = [each.exception() for each in waits if not each.cancelled()]
        if any(broken):
            log.info("%s does not wait any more: %r", hello.worker, broken)
        return self._begun.is_set()

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
        if self._pool is not None:
            self._pool.gone(worker, task, self._groups.now())
            self.act()

    def progressed(self, task: str, report: TaskReport) -> None:
        """The group of a task has news."""
        if self._pool is not None:
            self._pool.progressed(task, report)
            self.act()

    def ended(self, task: str, report: TaskReport) -> None:
        """The group of a task has ended."""
        if self._pool is None:
            return
        now = self._groups.now()
        self._pool.progressed(task, report)
        if report.failure is not None:
            self._pool.failed(task, report.failure, now)
        else:
            self._pool.finished(task, report.result or {}, now)
        self.act()

    def report(self, connected: Iterable[str]) -> TaskReport:
        there = {*connected, *self._waiting, *self._coming.values()}
        if self._pool is None:
            return preparing(self._assignment, sorted(there), self._failure)
        return pool_report.report(self._pool, there, self._groups.now())

    def resize(self, workers: int) -> None:
        self._assignment = replace(self._assignment, workers=workers)
        if self._pool is not None:
            self._pool.resize(workers)
            self.act()

    def drain(self, reason: str) -> None:
        self._draining = reason
        if self._pool is not None:
            self._pool.drain(reason)
            self.act()

    def close(self) -> None:
        """Let everybody go that waits."""
        self._closed.set()
        self._begun.set()
        if self._work is not None:
            self._work.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for placed in self._waiting.values():
            placed.cancel()
        self._waiting.clear()

    def act(self) -> None:
        """Do what the pool says."""
        if self._pool is None or self._closed.is_set():
            return
        for action in self._pool.settle(self._groups.now()):
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
                case Decide():
                    decision = self._decide(self._pool)
                    self._work = asyncio.get_running_loop().create_task(decision)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._pool.next_deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self.act)
        self._on_change()

    def _resolve(self, worker: str, task: str | None) -> None:
        placed = self._waiting.pop(worker, None)
        if placed is not None and not placed.done():
            placed.set_result(task)


def _undecidable(error: Exception) -> Failure:
    message = f"what the tasks are cannot be worked out: {type(error).__name__}: {error}"
    return Failure(reason=conditions.INVALID_TASKS, message=message[:MESSAGE_LENGTH])


def stop_again(stop: Stop) -> Stop:
    """For a worker of a pool: its task is over, and there may be others."""
    return replace(stop, again=True)
