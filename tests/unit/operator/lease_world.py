"""Replicas, a Lease and the network between them, in virtual time: hours pass in milliseconds."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from shardwise_operator.leader import Candidate, LeaseLost, Terms
from shardwise_operator.port import ApiError

NAMESPACE, NAME = "system", "shardwise"
RESTART_SECONDS = 1.0


class _Jump(selectors.DefaultSelector):
    """Waits for nothing: where the loop would, its clock moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs it on a loop of virtual time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(main(loop))
        loop.run_until_complete(_end())
    finally:
        loop.close()


async def _end() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@dataclass
class Server:
    """The API server's one Lease, with its optimistic locking."""

    lease: dict[str, Any] | None = None
    version: int = 0
    writes: int = 0

    def get(self) -> dict[str, Any]:
        if self.lease is None:
            raise ApiError(404, "NotFound", "no lease")
        return copy.deepcopy(self.lease)

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self._put(copy.deepcopy(body))

    def patch(self, body: dict[str, Any]) -> dict[str, Any]:
        lease = self.get()
        if body["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        lease["spec"] |= body["spec"]
        return self._put(lease)

    def touch(self, **spec: Any) -> None:
        """Somebody else changes it."""
        lease = self.get()
        lease["spec"] |= spec
        self._put(lease)

    def _put(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.writes += 1
        lease["metadata"]["resourceVersion"] = str(self.version)
        self.lease = lease
        return copy.deepcopy(lease)


@dataclass
class Link:
    """A replica's way to the server. What was sent arrives, whoever still waits for it."""

    server: Server
    loop: VirtualLoop
    down: bool = False
    """Nothing is answered, and nothing arrives."""
    mute: bool = False
    """Requests arrive, answers do not."""
    delay: Callable[[], float] = lambda: 0.005
    calls: int = 0

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        assert (kind, namespace, name) == ("leases", NAMESPACE, NAME)
        return await self._call(self.server.get)

    async def create(self, kind: str, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (kind, namespace, body["metadata"]["name"]) == ("leases", NAMESPACE, NAME)
        return await self._call(lambda: self.server.create(body))

    async def patch(
        self, kind: str, namespace: str, name: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        assert (kind, namespace, name) == ("leases", NAMESPACE, NAME)
        return await self._call(lambda: self.server.patch(body))

    async def _call(self, apply: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        self.calls += 1
        answer: asyncio.Future[dict[str, Any]] = self.loop.create_future()

        def arrive() -> None:
            try:
                done: dict[str, Any] | ApiError = apply()
            except ApiError as error:
                done = error
            if not self.mute:
                self.loop.call_later(self.delay(), reply, done)

        def reply(done: dict[str, Any] | ApiError) -> None:
            if answer.done():
                return
            if isinstance(done, ApiError):
                answer.set_exception(done)
            else:
                answer.set_result(done)

        if not self.down:
            self.loop.call_later(self.delay(), arrive)
        return await answer


@dataclass
class Replica:
    """One replica: stands by, acts, ends when it must, and is started again."""

    name: str
    link: Link
    terms: Terms = field(default_factory=Terms)
    rate: float = 1.0
    """Of its monotonic clock."""
    wall: timedelta = timedelta()
    """By how much its wall clock is wrong."""
    acted: list[tuple[float, float]] = field(default_factory=list)
    """When it acted: from, to."""
    lost: list[str] = field(default_factory=list)
    candidate: Candidate | None = None
    since: float | None = None
    _task: asyncio.Task[None] | None = None
    _restart: asyncio.TimerHandle | None = None

    @property
    def leads(self) -> bool:
        return self.since is not None

    def start(self) -> None:
        loop, rate = self.link.loop, self.rate
        epoch = datetime(2026, 1, 1, tzinfo=UTC) + self.wall
        self.candidate = Candidate(
            self.link,  # type: ignore[arg-type] - as much of a cluster as it uses
            NAMESPACE,
            NAME,
            self.name,
            self.terms,
            clock=lambda: loop.time() * rate,
            now=lambda: epoch + timedelta(seconds=loop.time()),
        )
        self._task = loop.create_task(self._run(self.candidate))

    def kill(self) -> None:
        """SIGKILL: what it had sent is under way still."""
        assert self._task is not None
        self._task.cancel()
        if self._restart is not None:
            self._restart.cancel()
        self._ended()

    async def stop(self) -> None:
        """SIGTERM: the end in good order."""
        self.kill()
        assert self.candidate is not None
        await self.candidate.release()

    async def _run(self, candidate: Candidate) -> None:
        await candidate.acquire()
        self.since = self.link.loop.time()
        try:
            await candidate.hold()
        except LeaseLost as lost:
            self._ended()
            self.lost.append(str(lost))
            self._restart = self.link.loop.call_later(RESTART_SECONDS, self.start)

    def _ended(self) -> None:
        if self.since is not None:
            self.acted.append((self.since, self.link.loop.time()))
            self.since = None


def no_two_at_once(replicas: list[Replica]) -> None:
    intervals = sorted(
        (begin, end, replica.name) for replica in replicas for begin, end in replica.acted
    )
    for (_, end, first), (begin, _, second) in itertools.pairwise(intervals):
        assert end <= begin, f"{first} acts until {end:.3f}, {second} from {begin:.3f}"


def faults(rng: random.Random, replicas: list[Replica]) -> None:
    """One thing that goes wrong, or right again."""
    replica = rng.choice(replicas)
    match rng.randrange(6):
        case 0:
            replica.link.down = not replica.link.down
        case 1:
            replica.link.mute = not replica.link.mute
        case 2:
            for each in replicas:
                each.link.down = True
        case 3:
            slowest = rng.choice((0.01, 0.5, 4.0, 25.0))
            replica.link.delay = lambda: rng.uniform(0.001, slowest)
        case 4:
            replica.kill()
            replica.start()
        case 5:
            repair(replicas)


def repair(replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.link.down = replica.link.mute = False
        replica.link.delay = lambda: 0.005
