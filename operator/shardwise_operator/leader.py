"""Which of the operator's replicas acts: the one that holds a Lease.

The rules are client-go's. The holder renews the Lease every `retry_seconds`. Another replica takes
it once it has not seen it change for the `duration_seconds` that are written in it, by its own
monotonic clock: no two machines' clocks are ever compared. The holder gives up when its last good
renewal was *sent* more than `renew_seconds` ago, which is less: it has ended before another begins.
Every write names the version that it replaces, so of two replicas that try at once one fails.

`kubernetes.aio.leaderelection` (37.0) is not used: a request that hangs outlasts its deadlines, a
broken connection ends it, it reads the wall clock, and it never gives a Lease back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any, NoReturn

from shardwise_operator import names
from shardwise_operator.port import ApiError, Cluster

log = logging.getLogger(__name__)

LEASES = "leases"
EXIT_LOST = 3
RELEASE_SECONDS = 5.0
LEAST_PAUSE = 0.05
"""Of the holder between two tries, however little time is left."""


class LeaseLost(Exception):  # noqa: N818 - an event
    """Another replica acts, or may do so soon: this process must not."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The election's times, in seconds.

    Raises:
        ValueError: the holder would not be sure to have ended before another begins.
    """

    duration_seconds: float = 15.0
    """For how long a Lease that is not renewed keeps others out."""
    renew_seconds: float = 10.0
    """For how long the holder goes on without a renewal."""
    retry_seconds: float = 2.0
    """Between two tries, of the holder to renew and of others to take over."""

    def __post_init__(self) -> None:
        if not self.duration_seconds > self.renew_seconds:
            raise ValueError(
                f"the lease's renewSeconds ({self.renew_seconds:g}) must be less than its "
                f"durationSeconds ({self.duration_seconds:g})"
            )
        if not self.renew_seconds > 2 * self.retry_seconds:
            raise ValueError(
                f"the lease's retrySeconds ({self.retry_seconds:g}) must be less than half its "
                f"renewSeconds ({self.renew_seconds:g}): one try may fail"
            )


@dataclass(frozen=True, slots=True)
class _Seen:
    """The Lease as it was last read or written, and when."""

    holder: str
    duration: float
    version: str
    transitions: int
    at: float


class Candidate:
    """One replica's part in the election.

    Args:
        identity: unique among all pods there ever are. A container that is restarted in its pod is
            the same candidate: it takes its Lease up again without waiting.
        renewed: called after each good renewal with the seconds for which it lets this process act.
        released: called when this process acts no more, and gives the Lease back.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms,
        *,
        renewed: Callable[[float], None] = lambda seconds: None,
        released: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._terms = terms
        self._on_renewed = renewed
        self._on_released = released
        self._clock = clock
        self._now = now
        self._seen: _Seen | None = None
        self._ends: float | None = None
        """When this process must have ended unless it renews; None while it does not lead."""
        self._contact = clock()

    @property
    def leads(self) -> bool:
        return self._ends is not None

    @property
    def holder(self) -> str:
        """Who holds the Lease as far as is known; empty for nobody."""
        return self._seen.holder if self._seen else ""

    @property
    def age(self) -> float:
        """Seconds since the API server last answered."""
        return self._clock() - self._contact

    async def acquire(self) -> None:
        """Returns once this replica leads; `hold` must run from then on."""
        told = ""
        while not await self._attempt(self._terms.renew_seconds / 2):
            if self.holder not in ("", told):
                told = self.holder
                log.info("standing by", extra={"leader": told})
            await asyncio.sleep(self._terms.retry_seconds)
        log.info("leading", extra={"lease": f"{self._namespace}/{self._name}"})

    async def hold(self) -> NoReturn:
        """Renews for as long as it can.

        Raises:
            LeaseLost: it could not in time, or another replica has the Lease.
        """
        while True:
            await asyncio.sleep(max(LEAST_PAUSE, min(self._terms.retry_seconds, self._left())))
            if self._left() <= 0:
                raise LeaseLost(f"not renewed for {self._terms.renew_seconds:g} s")
            await self._attempt(min(self._left(), self._terms.renew_seconds / 2))
            if self.holder != self._identity:
                raise LeaseLost(f"it is held by {self.holder or 'nobody'}")

    async def release(self) -> None:
        """Gives the Lease back, so that another takes it with its next try. The last thing to do:
        nothing of this process may act any more."""
        if self._ends is None or self._seen is None:
            return
        self._ends = None
        self._on_released()
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._time()}
                await self._patch(spec, self._seen.version)
        except (ApiError, TimeoutError) as error:
            log.warning("the lease was not given back, it runs out by itself: %r", error)

    def _left(self) -> float:
        assert self._ends is not None, "only a leader holds"
        return self._ends - self._clock()

    async def _attempt(self, seconds: float) -> bool:
        """One try to take or renew the Lease; whether it is ours now."""
        try:
            async with asyncio.timeout(seconds):
                return await self._take()
        except ApiError as error:
            if error.status == 409:  # Another was quicker, or a try of ours came late.
                self._contact = self._clock()
                await self._look(seconds)
            else:
                log.warning("the lease: %s", error)
        except TimeoutError:
            log.warning("the lease: no answer within %.1f s", seconds)
        return False

    async def _look(self, seconds: float) -> None:
        """After a conflict: what is in the Lease now decides whether the next try is a renewal."""
        try:
            async with asyncio.timeout(seconds):
                await self._read()
        except (ApiError, TimeoutError) as error:
            log.warning("the lease: %r", error)

    async def _take(self) -> bool:
        if not self.leads or self._seen is None:
            await self._read()
        seen, sent = self._seen, self._clock()
        if seen is None:
            lease = await self._cluster.create(LEASES, self._namespace, self._new())
            return self._taken(lease, sent)
        mine = seen.holder == self._identity
        if seen.holder and not mine and sent < seen.at + seen.duration:
            return False
        spec = self._renewal()
        if not mine:
            spec |= {"acquireTime": self._time(), "leaseTransitions": seen.transitions + 1}
        try:
            return self._taken(await self._patch(spec, seen.version), sent)
        except ApiError as error:
            if error.status != 404:
                raise
            self._seen = None  # Deleted by somebody; the next try makes it anew, if we are first.
            return False

    def _taken(self, lease: Mapping[str, Any], sent: float) -> bool:
        self._note(lease)
        self._ends = sent + self._terms.renew_seconds
        self._on_renewed(self._left())
        return True

    async def _read(self) -> None:
        try:
            self._note(await self._cluster.get(LEASES, self._namespace, self._name))
        except ApiError as error:
            if error.status != 404:
                raise
            self._contact = self._clock()
            self._seen = None

    def _note(self, lease: Mapping[str, Any]) -> None:
        """Its time counts from when a change of it was first seen."""
        self._contact = self._clock()
        spec = lease.get("spec") or {}
        version = str((lease.get("metadata") or {}).get("resourceVersion") or "")
        if self._seen is not None and self._seen.version == version:
            return
        self._seen = _Seen(
            holder=str(spec.get("holderIdentity") or ""),
            # What its holder counts on, which after a change of settings may differ from ours.
            duration=float(spec.get("leaseDurationSeconds") or self._terms.duration_seconds),
            version=version,
            transitions=int(spec.get("leaseTransitions") or 0),
            at=self._contact,
        )

    def _new(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {names.MANAGED_BY: names.MANAGER},
            },
            "spec": self._renewal() | {"acquireTime": self._time(), "leaseTransitions": 0},
        }

    def _renewal(self) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            # Whole seconds there; never less than what we count on.
            "leaseDurationSeconds": math.ceil(self._terms.duration_seconds),
            "renewTime": self._time(),
        }

    async def _patch(self, spec: Mapping[str, Any], version: str) -> dict[str, Any]:
        body = {"metadata": {"resourceVersion": version}, "spec": dict(spec)}
        return await self._cluster.patch(LEASES, self._namespace, self._name, body)

    def _time(self) -> str:
        """For people and other tools; nothing here reads it."""
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Alarm:
    """Ends the process when a lease may be another's: the kernel's timer, not the loop's.

    A loop that hangs, or a process that was stopped for a while, cannot look at a clock of its own
    in time; a signal comes before the next line of Python does.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, _end)

    def arm(self, seconds: float) -> None:
        # A timer of zero would be none at all.
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))

    def disarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    os.write(2, b"shardwise-operator: the lease was not renewed in time\n")
    os._exit(EXIT_LOST)
