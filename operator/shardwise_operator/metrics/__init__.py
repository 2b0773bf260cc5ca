"""The operator's metrics, as `shardwise.api.metrics` declares them.

What is counted as it happens (reconciles, API calls) is kept by prometheus-client. What is a
state (jobs, queue, ages) is read when it is asked for, so a job's series vanish with the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shardwise import __version__
from shardwise.api import metrics as declared
from shardwise.coordinator import TaskReport
from shardwise_operator.metrics.jobs import JobSeries

# A second series for each counter that says when it began would tell nobody anything.
disable_created_metrics()  # type: ignore[no-untyped-call]


def _no_report(uid: str) -> TaskReport | None:
    del uid
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the state is read; what is not given is not told."""

    jobs: Callable[[], Iterable[Mapping[str, Any]]]
    queue_depth: Callable[[], int]
    watch_age: Callable[[], float]
    loop_lag: Callable[[], float]
    report: Callable[[str], TaskReport | None] = _no_report
    """A job's last report, by its uid."""
    queue_oldest_age: Callable[[], float] | None = None
    """Seconds that the longest waiting key has waited; 0 where none waits."""
    leads: Callable[[], bool] | None = None


class Metrics:
    """The registry, and what the rest of the operator counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._jobs = JobSeries()
        self._sources: Sources | None = None
        self._reconciles = Histogram(
            *_names(declared.RECONCILE_SECONDS),
            buckets=declared.RECONCILE_SECONDS.buckets,
            registry=self.registry,
        )
        self._errors = self._counter(declared.RECONCILE_ERRORS)
        self._writes = self._counter(declared.STATUS_WRITES)
        self._calls = self._counter(declared.API_REQUESTS)
        self._events = self._counter(declared.EVENTS)
        build = Gauge(
            *_names(declared.BUILD_INFO), declared.BUILD_INFO.labels, registry=self.registry
        )
        build.labels(version=__version__).set(1)
        ProcessCollector(registry=self.registry)

    def reconcile_time(self) -> AbstractContextManager[None]:
        """Around one reconcile; one that raises counts as an error too."""
        return self._reconcile_time()

    @contextmanager
    def _reconcile_time(self) -> Iterator[None]:
        with self._reconciles.time(), self._errors.count_exceptions(Exception):
            yield

    def status_write(self, outcome: str) -> None:
        self._writes.labels(outcome=outcome).inc()

    def api_call(self, verb: str, code: str) -> None:
        self._calls.labels(verb=verb, code=code).inc()

    def event(self, outcome: str) -> None:
        self._events.labels(outcome=outcome).inc()

    def reported(self, job: Mapping[str, Any], report: TaskReport) -> None:
        """A job's report as it comes in, so that its first step is dated when it is done."""
        self._jobs.note(job, report)

    def observe(self, sources: Sources) -> None:
        """From now on, tell of these as well."""
        self._sources = sources
        self.registry.register(StateCollector(sources))

    def exposition(self) -> bytes:
        text = generate_latest(self.registry)
        if self._sources is None:
            return text
        return text + self._jobs.text(self._sources.jobs(), self._sources.report).encode()

    def _counter(self, family: declared.Family) -> Counter:
        return Counter(*_names(family), family.labels, registry=self.registry)


class StateCollector(Collector):
    """The operator's own state, read at the time of the scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        told: list[tuple[declared.Family, Callable[[], float] | None]] = [
            (declared.QUEUE_DEPTH, self._sources.queue_depth),
            (declared.QUEUE_AGE, self._sources.queue_oldest_age),
            (declared.WATCH_AGE, self._sources.watch_age),
            (declared.LOOP_LAG, self._sources.loop_lag),
            (declared.LEADER, self._sources.leads),
        ]
        for declaration, value in told:
            if value is not None:
                family = GaugeMetricFamily(*_names(declaration))
                family.add_metric([], float(value()))
                yield family


def _names(family: declared.Family) -> tuple[str, str]:
    """As prometheus-client takes them: it puts a counter's `_total` on by itself."""
    return family.name.removesuffix("_total"), family.help
