"""The coordinator as a server: control connections on one side, the groups of tasks on the other.

It owns what the groups must not: sockets, the clock, timers. A connection begins with a token; the
caller's `authenticate` says which task it belongs to; its hello is read then, and from then on
every message goes to that task's group, and what the group answers goes out. It decides nothing
itself. The operator runs it in its own process, and local mode in the parent of the workers: it
must never block. Who may come in, and how much who is in may say, is `door`'s and `budget`'s.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ssl import SSLContext
from weakref import WeakValueDictionary

from shardwise.api.conditions import REFUSED_WORKER
from shardwise.coordinator.admission import (
    Authenticate,
    Credential,
    Identity,
    first_hello,
    first_token,
    from_worker,
    identified,
)
from shardwise.coordinator.aside import Aside
from shardwise.coordinator.budget import JobBudget
from shardwise.coordinator.connection import LINGER_SECONDS, Connection
from shardwise.coordinator.door import Door, Limits, Visit
from shardwise.coordinator.group import MESSAGE_LENGTH, Group
from shardwise.coordinator.group_actions import Action, Drop, Send
from shardwise.coordinator.pools import HostedPool, stop_again
from shardwise.coordinator.protocol import (
    Bye,
    Hello,
    KeyValue,
    Protection,
    ProtocolError,
    Refusal,
    Refused,
    Stop,
    Welcome,
    encode,
)
from shardwise.coordinator.report import (
    SUSPICION_PART,
    Assignment,
    Cause,
    PoolAssignment,
    TaskReport,
)
from shardwise.coordinator.seldom import Seldom

log = logging.getLogger(__name__)

OPEN_SECONDS = 10.0
"""How long a worker is held whose task is not open yet, e.g. after this process was restarted."""
RETRY_SECONDS = 1.0
"""How long a worker without a verdict is held, so that it does not come again at once."""
SECRET_BYTES = 32
"""Of each generation."""
CLOSED_TASKS = 1000
"""Closed tasks whose late workers are told why."""
STRANGER_SECONDS = 1.0
"""How long somebody who is refused and not known may leave the connection open."""
COMING = 4
"""Connections of one worker that have no place yet; the newest stay."""
CHANGE_SECONDS = 0.05
"""Between two times that a task's owner is told of its news."""
BUDGETS = 10_000
"""Jobs whose budgets are remembered although no task of theirs is open."""
OUTGOING_BYTES = 64 << 20
"""That may wait for all workers of a task together."""


@dataclass(slots=True)
class _Task:
    """An open task: its group, the live connection of each worker, and its timer."""

    group: Group
    connections: dict[str, Connection] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    pool: HostedPool | None = None
    """The pool that it is a task of."""


class Coordinator:
    """Serves the workers of all open tasks. Everything but start and stop is for the loop's thread.

    Args:
        authenticate: tells whose hello this is. `Refused` turns the worker away for good; any
            other exception drops the connection, and the worker tries again.
        on_change: called with a task's key soon after its report may have changed.
        detection_seconds: how long it may take to notice a worker that hangs, where its task does
            not say.
        limits: of connections; None: by what this process may open.
        adoption_seconds: how long the members of a group that trained under an earlier coordinator
            may take to come to this one.
        unix: seconds since 1970, of the clock that reports are dated by.
        protection: of the connections between the members of a group.
    """

    def __init__(
        self,
        *,
        authenticate: Authenticate,
        on_change: Callable[[str], None],
        detection_seconds: float = 0.5,
        adoption_seconds: float = 10.0,
        limits: Limits | None = None,
        unix: Callable[[], float] = time.time,
        protection: Protection = "authenticated",
    ) -> None:
        self._unix = unix
        self._protection: Protection = protection
        self._authenticate = authenticate
        self._on_change = on_change
        self._detection_seconds = detection_seconds
        self._adoption_seconds = adoption_seconds
        self._tasks: dict[str, _Task] = {}
        self._pools: dict[str, HostedPool] = {}
        self._aside = Aside()
        self._closed: dict[str, Stop] = {}
        self._opened: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._changed: set[str] = set()
        self._told_at: dict[str, float] = {}
        self._budgets: dict[str, JobBudget] = {}
        self._coming: dict[tuple[str, str], list[asyncio.Task[None]]] = {}
        self._strangers = Seldom()
        self._door = Door(self._visited, limits)
        self._orders = itertools.count()
        self._unix_offset = 0.0

    async def start(self, host: str, port: int, ssl: SSLContext | None = None) -> int:
        """Listen; port 0 picks a free one. Gives the port: that of IPv4, where there are more.

        Raises:
            OSError: the address cannot be had.
        """
        self._unix_offset = self._unix() - asyncio.get_running_loop().time()
        bound = await self._door.open(host, port, ssl)
        log.info("coordinator listens on %s:%d%s", host, bound, " with TLS" if ssl else "")
        return bound

    async def stop(self) -> None:
        """Close all connections. Workers are told nothing: they look for the next coordinator."""
        for task in self._tasks.values():
            if task.timer is not None:
                task.timer.cancel()
        for pool in self._pools.values():
            pool.close()
        self._tasks.clear()
        self._pools.clear()
        await self._door.close()

    def open_task(self, assignment: Assignment) -> None:
        """Let the task's workers in. A task that is open already stays as it is.

        Raises:
            ProtocolError: the assignment is too large for a message.
        """
        self._open(assignment, None)

    def open_pool(self, assignment: PoolAssignment) -> None:
        """Let the workers of a job with many tasks in. One that is open already stays as it is."""
        key = assignment.pool
        if key in self._pools:
            return
        self._closed.pop(key, None)
        self._budget(key).sized(assignment.workers)
        self._pools[key] = HostedPool(
            assignment,
            self,
            self._aside,
            lambda: self._news(key),
            adoption_seconds=self._adoption_seconds,
        )
        self._let_in(key)

    def _open(self, assignment: Assignment, pool: HostedPool | None) -> None:
        if assignment.task in self._tasks:
            return
        encode(Welcome(assignment=assignment))
        if pool is None:
            self._budget(assignment.task).sized(assignment.workers)
        self._closed.pop(assignment.task, None)
        if assignment.detection_seconds is None:
            assignment = replace(assignment, detection_seconds=self._detection_seconds)
        detection = assignment.detection_seconds or self._detection_seconds
        group = Group(
            assignment,
            self.now(),
            detection_seconds=(1 - SUSPICION_PART) * detection,
            adoption_seconds=self._adoption_seconds,
            secret=_new_secret,
            protection=self._protection,
        )
        held = self._tasks[assignment.task] = _Task(group, pool=pool)
        self._moved(held, [])
        self._let_in(assignment.task)

    def _let_in(self, key: str) -> None:
        opened = self._opened.pop(key, None)
        if opened is not None:
            opened.set()

    def resize_task(self, task: str, workers: int, min_workers: int) -> None:
        """Want another number of members; nothing happens where it is the same, or not open."""
        if task in self._budgets:
            self._budgets[task].sized(workers)
        if task in self._pools:
            self._pools[task].resize(workers)
        held = self._tasks.get(task)
        if held is None:
            return
        wanted = held.group.assignment
        if (wanted.workers, wanted.min_workers) != (workers, min_workers):
            self._moved(held, held.group.resize(workers, min_workers, self._now()))

    def drain_task(self, task: str, reason: str) -> None:
        """Let all workers leave at their next boundary, with a checkpoint, and take none in.

        It cannot be undone: close the task and open it again.
        """
        pool = self._pools.get(task)
        if pool is not None:
            pool.drain(reason)
        for held in self._groups_of(task):
            self._moved(held, held.group.drain(reason, self._now()))

    def lost_worker(self, task: str, worker: str, cause: Cause) -> None:
        """A worker is gone by another sign than its connection, e.g. its pod was deleted."""
        log.info("%s of %s is lost: %s", worker, task, cause)
        for held in self._groups_of(task):
            self._moved(held, held.group.lost(worker, cause, self._now()))
            if held.pool is not None:
                held.pool.gone(worker, held.group.assignment.task)
        if task in self._pools:
            self._pools[task].gone(worker, None)

    def close_task(self, task: str, reason: str, message: str) -> None:
        """Stop the task's workers, those that come late as well, and forget it."""
        pool, groups = self._pools.pop(task, None), self._groups_of(task)
        self._budgets.pop(task, None)
        self._told_at.pop(task, None)
        if pool is None and not groups:
            return
        for held in groups:
            held.pool = None  # there is no other task to come again for
            self._end(held, held.group.close(reason, message))
        if pool is not None:
            pool.close()
        self._closed[task] = Stop(reason=reason, message=message)
        while len(self._closed) > CLOSED_TASKS:
            del self._closed[next(iter(self._closed))]

    # The groups of pools.

    def open_group(self, assignment: Assignment, pool: HostedPool) -> None:
        """Open the group of a pool's task."""
        self._open(assignment, pool)

    def stop_group(self, task: str, reason: str, message: str) -> None:
        """End the group of a pool's task; its workers come again."""
        held = self._tasks.get(task)
        if held is not None:
            self._end(held, held.group.close(reason, message))

    def release_worker(self, task: str, worker: str) -> None:
        """Let a worker go that stands by in a group."""
        held = self._tasks.get(task)
        if held is not None:
            self._moved(held, held.group.release(worker, self._now()))

    def now(self) -> float:
        """The loop's time, which groups and pools go by."""
        return self._now()

    def _groups_of(self, key: str) -> list[_Task]:
        """The group of this task, or the groups of this pool."""
        prefix = f"{key}/"
        return [held for task, held in self._tasks.items() if (task + "/").startswith(prefix)]

    def _end(self, held: _Task, actions: list[Action]) -> None:
        """A group is no more."""
        self._tasks.pop(held.group.assignment.task, None)
        self._told_at.pop(held.group.assignment.task, None)
        if held.timer is not None:
            held.timer.cancel()
        self._deliver(held, actions)
        for connection in held.connections.values():
            connection.end_soon()

    def report(self, task: str) -> TaskReport | None:
        """The task or the pool as it is now; None if it is not open."""
        if task in self._pools:
            there = [worker for held in self._groups_of(task) for worker in held.connections]
            return self._in_unix_time(self._pools[task].report(there))
        held = self._tasks.get(task)
        if held is None:
            return None
        return self._in_unix_time(held.group.report())

    def _in_unix_time(self, report: TaskReport) -> TaskReport:
        offset, progress, checkpoint = self._unix_offset, report.progress, report.checkpoint
        return replace(
            report,
            progress=progress and replace(progress, at=progress.at + offset),
            checkpoint=checkpoint and replace(checkpoint, at=checkpoint.at + offset),
            losses=tuple(replace(loss, at=loss.at + offset) for loss in report.losses),
        )

    # Connections.

    async def _visited(self, visit: Visit) -> None:
        """One connection, from its first byte to its end."""
        connection = Connection(visit.reader, visit.writer, next(self._orders))
        try:
            await self._serve(visit, connection)
        except Refused as refused:
            self._say(visit, f"{connection.peer} refused: {refused.message}")
            message = refused.message[:MESSAGE_LENGTH]
            await self._refuse(visit, connection, Refusal(reason=refused.reason, message=message))
        except ProtocolError as error:
            self._say(visit, f"{connection.peer} does not speak the protocol: {error}")
            message = f"the coordinator cannot read this: {error}"[:MESSAGE_LENGTH]
            await self._refuse(visit, connection, Refusal(reason=REFUSED_WORKER, message=message))
        except (OSError, TimeoutError) as error:
            self._say(visit, f"connection of {connection.peer} ended: {error!r}")
        except Exception:
            # A fault of ours that one worker's messages have found: it must not end the others.
            log.exception("connection of %s dropped", connection.peer)
        finally:
            with visit.waiting():
                await connection.close()

    def _say(self, visit: Visit, text: str) -> None:
        """A line in the log; of strangers, who come as often as they like, only some."""
        line = text if visit.known else self._strangers.line(text, self._now())
        if line is not None:
            log.info("%s", line)

    async def _refuse(self, visit: Visit, connection: Connection, refusal: Refusal) -> None:
        connection.send(refusal)
        with visit.waiting():
            await connection.discard(LINGER_SECONDS if visit.known else STRANGER_SECONDS)

    async def _serve(self, visit: Visit, connection: Connection) -> None:
        with visit.waiting():
            token = await first_token(connection)
        if token is None:
            return
        credential = Credential(token=token, place=visit.place)
        identity = await identified(
            credential, self._authenticate, functools.partial(self._say, visit)
        )
        if identity is None or not visit.admitted():
            with visit.waiting():
                await connection.discard(RETRY_SECONDS)
            return
        coming = self._comes(identity)
        try:
            found = await self._find_place(identity, connection)
        finally:
            self._has_come(identity, coming)
        if found is None:
            return
        held, hello = found
        group, worker, task = held.group, hello.worker, held.group.assignment.task
        former = held.connections.get(worker)
        if former is not None and former.order > connection.order:
            return  # Authenticating this one took longer than the worker's next attempt.
        actions = group.joined(hello, self._now())
        held.connections[worker] = connection
        if former is not None:
            log.info("%s of %s has a new connection", worker, identity.task)
            former.abort()
        self._moved(held, actions)
        try:
            while (message := await connection.receive()) is not None:
                if held.connections.get(worker) is not connection:
                    return
                self._moved(held, group.received(worker, from_worker(message), self._now()))
        except Refused as refused:
            if held.connections.get(worker) is connection:
                self._moved(held, group.refuse(worker, refused.message, self._now()))
            raise
        finally:
            # A newer connection of the same worker stands for it now, and this end means nothing.
            if held.connections.get(worker) is connection:
                del held.connections[worker]
                self._moved(held, group.disconnected(worker, self._now()))
                if held.pool is not None:
                    held.pool.gone(worker, task)

    async def _find_place(
        self, identity: Identity, connection: Connection
    ) -> tuple[_Task, Hello] | None:
        """The task that somebody known is for, and what it says of itself; None where it has none,
        and was told."""
        budget = self._budget(identity.task)
        if identity.worker is not None:
            connection.known(budget.of(identity.worker))
        hello = await first_hello(connection, identity)
        if hello is None:
            return None
        if identity.worker is None:
            connection.budget = budget.of(hello.worker)
        task = await self._place(identity.task, hello, connection)
        held = self._tasks.get(task)
        if held is None:
            await self._without_task(connection, task, hello)
            return None
        return held, hello

    def _comes(self, identity: Identity) -> asyncio.Task[None] | None:
        """A worker has one more connection without a place; the oldest make room."""
        handler = asyncio.current_task()
        if handler is None or identity.worker is None:
            return None
        coming = self._coming.setdefault((identity.task, identity.worker), [])
        coming.append(handler)
        if len(coming) > COMING:
            coming.pop(0).cancel()
        return handler

    def _has_come(self, identity: Identity, handler: asyncio.Task[None] | None) -> None:
        key = (identity.task, identity.worker or "")
        coming = self._coming.get(key, [])
        if handler in coming:
            coming.remove(handler)
        if not coming:
            self._coming.pop(key, None)

    def _budget(self, job: str) -> JobBudget:
        if job not in self._budgets:
            if len(self._budgets) >= BUDGETS:
                del self._budgets[next(iter(self._budgets))]
            self._budgets[job] = JobBudget()
        return self._budgets[job]

    async def _place(self, task: str, hello: Hello, connection: Connection) -> str:
        """The task that a worker is for: that of its token, or one of the pool of its token.

        It is waited for a little to be opened, in a pool for as long as it takes.
        """
        if task not in self._tasks and task not in self._pools and task not in self._closed:
            opened = self._opened.setdefault(task, asyncio.Event())
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    await opened.wait()
            except TimeoutError:
                log.info("a worker came for task %s, which is not open", task)
        pool = self._pools.get(task)
        return task if pool is None else await pool.place(hello, connection) or task

    async def _without_task(self, connection: Connection, task: str, hello: Hello) -> None:
        """A closed task's worker is told; that of an unknown one is to try again."""
        stop = self._closed.get(task)
        if stop is None:
            await connection.discard(RETRY_SECONDS)
        if stop is not None:
            await self._turn_away(connection, Bye() if hello.phase == "finishing" else stop)

    async def _turn_away(self, connection: Connection, message: Refusal | Stop | Bye) -> None:
        connection.send(message)
        await connection.discard()

    # Groups.

    def _moved(self, held: _Task, actions: list[Action]) -> None:
        """An event has moved a group: send, cut off, set the timer, tell the owner."""
        task = held.group.assignment.task
        if self._tasks.get(task) is not held:
            return  # Closed, or this coordinator ends: its connections' ends are no losses.
        self._deliver(held, actions)
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        loop = asyncio.get_running_loop()
        deadline = held.group.next_deadline()
        if deadline is not None:
            held.timer = loop.call_at(deadline, self._tick, held)
        self._news(task)

    def _tick(self, held: _Task) -> None:
        held.timer = None
        # The loop may call a little early, by its clock's resolution.
        due = held.group.next_deadline()
        now = self._now() if due is None else max(self._now(), due)
        self._moved(held, held.group.tick(now))

    def _news(self, task: str) -> None:
        # Once for many events; its exceptions are not the connection's. A pool goes on at once,
        # an owner from outside is not asked to look at a task more often than it can tell.
        if task in self._changed:
            return
        self._changed.add(task)
        held, loop = self._tasks.get(task), asyncio.get_running_loop()
        due = self._told_at.get(task, 0.0) + CHANGE_SECONDS
        if loop.time() >= due or (held is not None and held.pool is not None):
            loop.call_soon(self._tell, task)
        else:
            loop.call_at(due, self._tell, task)

    def _tell(self, task: str) -> None:
        self._changed.discard(task)
        held = self._tasks.get(task)
        if held is None or held.pool is None:
            if held is not None or task in self._pools:
                self._told_at[task] = self._now()
            self._on_change(task)
            return
        group, report = held.group, held.group.report()
        if group.ended:
            self._end(held, [])
            held.pool.ended(task, report)
        else:
            held.pool.progressed(task, report)

    def _deliver(self, held: _Task, actions: list[Action]) -> None:
        lines: dict[int, bytes] = {}
        for action in actions:
            if isinstance(action, Drop):
                # The group knows already: the connection's end is no event any more.
                dropped = held.connections.pop(action.worker, None)
                if dropped is not None:
                    log.warning("%s of %s is out", action.worker, held.group.assignment.task)
                    if action.last is None:
                        dropped.abort()
                    else:
                        dropped.send(action.last)
                        dropped.end_soon()
                if held.pool is not None:
                    held.pool.gone(action.worker, held.group.assignment.task)
                continue
            connection = held.connections.get(action.worker)
            if connection is None:
                continue
            message = action.message
            if held.pool is not None and isinstance(message, Stop):
                message = stop_again(message)
            line = lines.get(id(action.message))
            if line is None:
                line = lines[id(action.message)] = encode(message)
            connection.send(message, line)
            if isinstance(message, Bye | Refusal | Stop):
                connection.end_soon()
        if any(isinstance(each, Send) and isinstance(each.message, KeyValue) for each in actions):
            self._bound_outgoing(held)

    def _bound_outgoing(self, held: _Task) -> None:
        """What is relayed goes to all: who takes least of it in goes, where too much waits."""
        waiting = {connection: connection.unsent for connection in held.connections.values()}
        if sum(waiting.values()) > OUTGOING_BYTES:
            worst = max(waiting, key=lambda each: waiting[each])
            log.warning("connection of %s dropped: %d bytes wait", worst.peer, waiting[worst])
            worst.abort()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)
