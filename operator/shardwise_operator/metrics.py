"""All metrics of the operator, declared in one place.

What is a state (jobs, progress, queue, ages) is read when it is asked for, by a collector, so a
job's series vanish with the job. No counter carries a job's name.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shardwise import __version__

# A second series for each counter that says when it began would tell nobody anything.
disable_created_metrics()  # type: ignore[no-untyped-call]

STATES = ("Pending", "Starting", "Running", "Succeeded", "Failed", "Invalid", "Waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the collector reads what it tells."""

    jobs: Callable[[], Iterable[Mapping[str, Any]]]
    queue_depth: Callable[[], int]
    watch_age: Callable[[], float]
    loop_lag: Callable[[], float]


class Metrics:
    """The registry, and what the rest of the operator counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Histogram(
            "shardwise_reconcile_duration_seconds",
            "Time of one reconcile of one job.",
            registry=self.registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
        )
        self._writes = Counter(
            "shardwise_status_writes",
            "Status writes: sent, coalesced (put off), or unchanged (not needed).",
            ["outcome"],
            registry=self.registry,
        )
        self._calls = Counter(
            "shardwise_api_requests",
            "Calls of the Kubernetes API by verb and status code; code 0 means no answer.",
            ["verb", "code"],
            registry=self.registry,
        )
        self._events = Counter(
            "shardwise_events",
            "Kubernetes Events: sent, repeated (counted up), or dropped.",
            ["outcome"],
            registry=self.registry,
        )
        build = Gauge("shardwise_build_info", "Always 1.", ["version"], registry=self.registry)
        build.labels(version=__version__).set(1)

    def reconcile_time(self) -> AbstractContextManager[Any]:
        timer: AbstractContextManager[Any] = self._reconciles.time()
        return timer

    def status_write(self, outcome: str) -> None:
        self._writes.labels(outcome=outcome).inc()

    def api_call(self, verb: str, code: str) -> None:
        self._calls.labels(verb=verb, code=code).inc()

    def event(self, outcome: str) -> None:
        self._events.labels(outcome=outcome).inc()

    def observe(self, sources: Sources) -> None:
        """From now on, tell of these as well."""
        self.registry.register(StateCollector(sources))

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


class StateCollector(Collector):
    """Reads the state at the time of the scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        yield from _job_metrics(list(self._sources.jobs()))
        for name, text, value in (
            ("queue_depth", "Jobs that wait to be reconciled.", self._sources.queue_depth()),
            (
                "watch_age_seconds",
                "Time since the API server was last heard of on the pod watch.",
                self._sources.watch_age(),
            ),
            (
                "loop_lag_seconds",
                "Longest delay of the event loop in the last minute.",
                self._sources.loop_lag(),
            ),
        ):
            family = GaugeMetricFamily(f"shardwise_{name}", text)
            family.add_metric([], value)
            yield family


def _job_metrics(jobs: list[Mapping[str, Any]]) -> Iterator[Metric]:
    states = Tally(str((job.get("status") or {}).get("state") or "Pending") for job in jobs)
    family = GaugeMetricFamily("shardwise_jobs", "Jobs by state.", labels=["state"])
    for state in STATES:
        family.add_metric([state], states.get(state, 0))
    yield family
    labels = ["namespace", "job"]
    ratio = GaugeMetricFamily(
        "shardwise_job_progress_ratio", "Part of a job's steps that is done.", labels=labels
    )
    step = GaugeMetricFamily("shardwise_job_step", "Steps that a job has done.", labels=labels)
    ready = GaugeMetricFamily(
        "shardwise_job_workers_ready", "Workers of a job that run.", labels=labels
    )
    for job in jobs:
        meta, status = job.get("metadata") or {}, job.get("status") or {}
        key = [str(meta.get("namespace") or ""), str(meta.get("name") or "")]
        progress, workers = status.get("progress") or {}, status.get("workers") or {}
        if progress.get("totalSteps"):
            ratio.add_metric(key, progress.get("step", 0) / progress["totalSteps"])
            step.add_metric(key, progress.get("step", 0))
        if "ready" in workers:
            ready.add_metric(key, workers["ready"])
    yield from (ratio, step, ready)
