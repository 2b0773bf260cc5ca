"""A worker's own metrics, on a port of its pod: how fast it steps, and whom it waits for.

In a group all workers take equally long for a step; the straggler is the one that computes for
longer and waits for less. So each tells its computing and its waiting apart. To be made after the
fork: a server has a thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from shardwise.api import metrics as declared

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]


class WorkerMetrics:
    """The series of one worker. Written by the training thread alone.

    Args:
        job: `namespace/name`; without a namespace it is "".
        worker: the worker's index.
    """

    def __init__(self, job: str, worker: int, clock: Callable[[], float] = time.monotonic) -> None:
        namespace, _, name = job.rpartition("/")
        key = (namespace, name, str(worker))
        self.registry = CollectorRegistry()
        self._clock = clock
        self._rank = Gauge(*_names(declared.WORKER_RANK), registry=self.registry).labels(*key)
        self._step = Gauge(*_names(declared.WORKER_STEP), registry=self.registry).labels(*key)
        phases = Gauge(*_names(declared.WORKER_PHASE), registry=self.registry)
        self._phases = {phase: phases.labels(*key, phase) for phase in declared.PHASES}
        self._steps = Histogram(
            *_names(declared.WORKER_STEP_SECONDS),
            buckets=declared.WORKER_STEP_SECONDS.buckets,
            registry=self.registry,
        ).labels(*key)
        kinds = Counter(*_names(declared.WORKER_SECONDS), registry=self.registry)
        self._kinds = {kind: kinds.labels(*key, kind) for kind in declared.STEP_KINDS}
        ProcessCollector(registry=self.registry)
        self._pending = dict.fromkeys(declared.STEP_KINDS, 0.0)
        self._doing = ""
        self._since = clock()
        self._now_in: tuple[str, int] = ("", 0)
        self.phase("loading")

    def phase(self, phase: str, rank: int = -1) -> None:
        """The worker is in this phase of `declared.PHASES`, with this rank in its group."""
        if self._now_in == (phase, rank):
            return
        self._now_in = (phase, rank)
        for name, gauge in self._phases.items():
            gauge.set(name == phase)
        self._rank.set(rank)

    def begin_step(self) -> None:
        """A step begins with computing; what came before it was none, or one that broke."""
        self._pending = dict.fromkeys(declared.STEP_KINDS, 0.0)
        self._doing, self._since = "computing", self._clock()

    def beat(self, activity: str) -> None:
        """Within a step, an activity begins; any but computing and exchanging is no part of it."""
        now = self._clock()
        if self._doing in self._pending:
            self._pending[self._doing] += now - self._since
        self._doing, self._since = activity, now

    def fetched(self, seconds: float) -> None:
        """So much of this step's computing was waiting for data."""
        self._pending["data"] += seconds
        self._pending["computing"] -= seconds

    def end_step(self, number: int) -> None:
        """The step is done: so many are, now."""
        self.beat("")
        self._steps.observe(sum(self._pending.values()))
        for kind, seconds in self._pending.items():
            self._kinds[kind].inc(max(0.0, seconds))
        self._step.set(number)

    def serve(self, port: int, address: str) -> int | None:
        """Answer scrapes on this address from now on; gives the port.

        A port that is taken costs the metrics, not the training: None, and a line in the log.
        """
        try:
            server, _ = start_http_server(port, address, self.registry)
        except OSError as error:
            log.warning("no metrics on %s port %d: %s", address, port, error)
            return None
        return int(server.server_port)


def _names(family: declared.Family) -> tuple[str, str, tuple[str, ...]]:
    """As prometheus-client takes them: it puts a counter's `_total` on by itself."""
    return family.name.removesuffix("_total"), family.help, family.labels
