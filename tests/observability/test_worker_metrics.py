"""A worker's exporter: what it counts on a given clock, and what it answers over HTTP."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardwise.api import metrics as declared
from shardwise.worker.metrics import WorkerMetrics

KEY = {"namespace": "team-a", "job_name": "digits", "worker": "2"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> WorkerMetrics:
    return WorkerMetrics("team-a/digits", 2, clock)


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {**KEY, **labels})


def spend(metrics: WorkerMetrics, clock: Clock, activity: str, seconds: float) -> None:
    metrics.beat(activity)
    clock.now += seconds


def test_a_steps_time_is_told_by_kind(metrics: WorkerMetrics, clock: Clock) -> None:
    metrics.phase("training", 1)
    metrics.begin_step()
    clock.now += 0.5
    metrics.fetched(0.2)
    spend(metrics, clock, "exchanging", 0.25)
    spend(metrics, clock, "computing", 0.125)
    metrics.end_step(7)
    seconds = {
        kind: value(metrics, "shardwise_worker_seconds_total", kind=kind)
        for kind in declared.STEP_KINDS
    }
    assert seconds == pytest.approx({"computing": 0.425, "exchanging": 0.25, "data": 0.2})
    assert value(metrics, "shardwise_worker_step_seconds_sum") == pytest.approx(0.875)
    assert value(metrics, "shardwise_worker_step_seconds_count") == 1
    assert value(metrics, "shardwise_worker_step") == 7
    assert value(metrics, "shardwise_worker_rank") == 1


def test_time_outside_of_steps_is_no_steps(metrics: WorkerMetrics, clock: Clock) -> None:
    metrics.begin_step()
    clock.now += 1.0
    metrics.end_step(1)
    clock.now += 30.0  # an evaluation, a checkpoint
    metrics.begin_step()
    spend(metrics, clock, "exchanging", 5.0)  # it breaks
    spend(metrics, clock, "waiting", 60.0)
    metrics.begin_step()
    clock.now += 0.5
    metrics.end_step(2)
    assert value(metrics, "shardwise_worker_step_seconds_sum") == pytest.approx(1.5)
    assert value(metrics, "shardwise_worker_seconds_total", kind="exchanging") == 0


def test_one_phase_at_a_time(metrics: WorkerMetrics) -> None:
    for phase in declared.PHASES:
        metrics.phase(phase)
        held = {p: value(metrics, "shardwise_worker_phase", phase=p) for p in declared.PHASES}
        assert held == {p: float(p == phase) for p in declared.PHASES}
    assert value(metrics, "shardwise_worker_rank") == -1


def test_it_answers_scrapes_with_what_is_declared(metrics: WorkerMetrics) -> None:
    metrics.begin_step()
    metrics.end_step(1)
    port = metrics.serve(0, "127.0.0.1")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for family in declared.FAMILIES:
        if family.source == "worker":
            found = families[family.name.removesuffix("_total")]
            assert (found.type, found.documentation) == (family.kind, family.help)
            for sample in found.samples:
                assert sample.labels.keys() - {"le"} == set(family.labels)


def test_a_port_that_is_taken_costs_no_training(metrics: WorkerMetrics, clock: Clock) -> None:
    port = metrics.serve(0, "127.0.0.1")
    assert port
    assert WorkerMetrics("digits", 0, clock).serve(port, "127.0.0.1") is None
