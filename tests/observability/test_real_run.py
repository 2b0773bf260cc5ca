"""A real training with workers that are killed, scraped by a real Prometheus: what is on the job's
dashboard is what happened."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boards import Question, boards, in_row, questions
from server import Prometheus, target, until

from shardwise.api import environment
from shardwise.api.validation import validate
from shardwise.local.run import Ended, LocalRun, Setting
from shardwise_operator.metrics import Metrics, Sources, serving
from shardwise_operator.sites import Site

WORKERS = 3
KILLS = ("kill:1@60", "kill:2@130", "kill:0@200")
RUN_SECONDS = 240.0
VARIABLES = {
    "namespace": "local",
    "job": "digits",
    "worker": ".+",
    "__rate_interval": "10s",
    "__range": "5m",
}
MANIFEST: dict[str, Any] = {
    "apiVersion": "shardwise.dev/v1alpha1",
    "kind": "OptimizationJob",
    "metadata": {"name": "digits", "namespace": "local", "uid": "digits"},
    "spec": {
        "trainer": {
            "entrypoint": "shardwise.examples.digits:task",
            "parameters": {"hidden": 64},
            "epochs": 60,
            "batchSize": 128,
            "shards": 6,
            "seed": 7,
        },
        "workers": {"replicas": WORKERS},
        "checkpoint": {"everySteps": 50, "volume": {"emptyDir": {}}},
    },
}


TASK_PANELS = in_row(boards()["shardwise-job"], "Tasks")
"""Those that a job of one task has nothing for."""
COMPRESSION_PANELS = in_row(boards()["shardwise-job"], "Compression")
"""Those that a job without compression has nothing for."""
SWEEP: dict[str, Any] = {
    **MANIFEST,
    "metadata": {"name": "sweep", "namespace": "local", "uid": "sweep"},
    "spec": {
        "trainer": {**MANIFEST["spec"]["trainer"], "epochs": 10},
        "workers": {"replicas": WORKERS},
        "tasks": {
            "sweep": {"parameters": [{"name": "hidden", "values": [16, 24, 32, 40, 48, 56]}]},
            "objectives": [{"metric": "accuracy", "direction": "Maximize"}],
        },
    },
}


class Run:
    """`shardwise run` in a thread, with the operator's exporter told of it; without a port, the
    workers' exporters are left out."""

    def __init__(
        self,
        output: Path,
        first_port: int | None,
        manifest: dict[str, Any] = MANIFEST,
        faults: tuple[str, ...] = KILLS,
    ) -> None:
        self._manifest, self._faults = manifest, faults
        self.targets: list[dict[str, Any]] = []
        self.ended: Ended | None = None
        self.seconds = 0.0
        self._output, self._first_port = output, first_port
        self._ready = threading.Event()
        self._close: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Run:
        self._thread.start()
        assert self._ready.wait(60), "the run has begun"
        return self

    def __exit__(self, *error: object) -> None:
        assert self._close is not None
        self._loop.call_soon_threadsafe(self._close.set)
        self._thread.join(120)

    async def _run(self) -> None:
        self._loop, self._close = asyncio.get_running_loop(), asyncio.Event()
        workers = {"desired": WORKERS, "min": 1}
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        job = {**self._manifest, "status": {"state": "Running", "workers": workers}}
        job["metadata"] = {**self._manifest["metadata"], "creationTimestamp": created}
        self._output.mkdir()
        setting = Setting(workers=WORKERS, output=self._output, faults=self._faults)
        local = self.local = LocalRun(validate(self._manifest), setting, self._output)
        metrics = Metrics()
        metrics.observe(
            Sources(
                jobs=lambda: [job],
                queue_depth=lambda: 0,
                watch_age=lambda: 0.0,
                loop_lag=lambda: 0.0,
                report=lambda _: local.report(),
            )
        )
        site = Site(serving.application(metrics.exposition, None, time.monotonic))
        await local.start()
        await site.start(0, host="127.0.0.1")
        self.targets = [
            target(f"127.0.0.1:{site.port}", "operator"),
            *(
                target(
                    f"127.0.0.1:{(self._first_port or 0) + index}",
                    "worker",
                    namespace="local",
                    job_name="digits",
                    worker=str(index),
                )
                for index in range(WORKERS if self._first_port is not None else 0)
            ),
        ]
        self._ready.set()
        began = time.monotonic()
        try:
            self.ended = await local.follow(
                asyncio.Event(), lambda report: metrics.reported(job, report)
            )
            self.seconds = time.monotonic() - began
            await self._close.wait()
        finally:
            await local.stop()
            await site.stop()


@pytest.fixture(scope="module")
def first_port() -> int:
    """The first of some free ports in a row."""
    for first in range(19400, 29400, 10):
        try:
            for port in range(first, first + WORKERS):
                with socket.socket() as free:
                    free.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError("no free ports in a row")


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, first_port: int
) -> Iterator[tuple[Run, Prometheus, set[Question]]]:
    """The run at its end, what scraped it, and the queries that never gave data during it."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.METRICS_PORT, str(first_port))
        with (
            Run(folder / "output", first_port) as run,
            Prometheus(folder, run.targets, "500ms") as prometheus,
        ):
            unanswered = {found for found in questions() if found.board == "shardwise-job"}

            def over() -> bool:
                for found in tuple(unanswered):
                    if prometheus.query(found.filled(VARIABLES)):
                        unanswered.discard(found)
                return run.ended is not None

            until("the end of the run", over, RUN_SECONDS)
            yield run, prometheus, unanswered


@pytest.mark.timeout(400)
def test_it_succeeds_in_spite_of_the_kills(scene) -> None:
    run, _, _ = scene
    assert run.ended.failure is None
    # On a busy machine a probe may be faster than the end of a connection.
    losses = [loss for loss in run.ended.report.losses if loss.cause in ("Killed", "Unreachable")]
    assert len(losses) >= len(KILLS)


def test_every_panel_of_the_jobs_dashboard_had_data(scene) -> None:
    _, _, unanswered = scene
    assert {found.panel for found in unanswered} == TASK_PANELS | COMPRESSION_PANELS


@pytest.mark.timeout(400)
def test_the_panels_of_tasks_have_the_data_of_a_sweep(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(environment.METRICS_PORT, raising=False)
    unanswered = {
        found
        for found in questions()
        if found.board == "shardwise-job" and found.panel in TASK_PANELS
    }
    assert {found.panel for found in unanswered} == TASK_PANELS
    variables = VARIABLES | {"job": "sweep"}
    with (
        Run(tmp_path / "output", None, SWEEP, ()) as run,
        Prometheus(tmp_path, run.targets, "500ms") as prometheus,
    ):
        until("the end of the sweep", lambda: run.ended is not None, RUN_SECONDS)

        def told() -> bool:
            for found in tuple(unanswered):
                if prometheus.query(found.filled(variables)):
                    unanswered.discard(found)
            done = prometheus.query('shardwise_job_tasks{job_name="sweep", state="Succeeded"}')
            return not unanswered and bool(done) and float(done[0]["value"][1]) == 6

        until("every panel has the tasks' data", told, 30)
        (best,) = prometheus.query('shardwise_job_best_objective{job_name="sweep"}')
        assert best["metric"]["metric"] == "accuracy"
        assert run.ended is not None
        tasks = run.ended.report.tasks
        assert tasks is not None and tasks.best is not None
        assert float(best["value"][1]) == tasks.best.metrics["accuracy"]


def test_the_panels_show_what_happened(scene) -> None:
    run, prometheus, _ = scene
    # Workers end after the task; what the coordinator tells by then is what Prometheus has.
    report = run.local.report()

    def told(name: str, label: str) -> dict[str, float]:
        found = prometheus.query(name)
        return {series["metric"][label]: float(series["value"][1]) for series in found}

    def settled() -> bool:
        causes = told("shardwise_job_recoveries_total", "cause")
        causes |= told("shardwise_job_resizes_total", "cause")
        return {cause: count for cause, count in causes.items() if count} == report.recoveries

    until("a scrape after the end", settled, 30)
    (step,) = prometheus.query("shardwise_job_step")
    assert float(step["value"][1]) == report.progress.total_steps
    (count,) = prometheus.query("shardwise_job_recovery_seconds_count")
    assert float(count["value"][1]) == sum(bool(loss.seconds) for loss in report.losses)
    seconds = told("shardwise_job_seconds_total", "kind")
    assert seconds["productive"] > 0
    assert seconds["recovery"] > 0
    # No second is told twice: together they are no longer than the run took.
    assert sum(seconds.values()) <= run.seconds
    (written,) = prometheus.query("shardwise_job_checkpoint_bytes")
    assert float(written["value"][1]) == report.checkpoint.bytes > 0


def test_each_worker_told_of_itself(scene) -> None:
    _, prometheus, _ = scene
    steps = prometheus.query("max by (worker) (max_over_time(shardwise_worker_step[10m]))")
    assert {series["metric"]["worker"] for series in steps} == {str(i) for i in range(WORKERS)}
    exchanged = prometheus.query(
        'sum by (worker) (max_over_time(shardwise_worker_seconds_total{kind="exchanging"}[10m]))'
    )
    assert len(exchanged) == WORKERS
    assert all(float(series["value"][1]) > 0 for series in exchanged)
    read = prometheus.query(
        'sum by (worker) (max_over_time(shardwise_worker_seconds_total{kind="data"}[10m]))'
    )
    assert all(float(series["value"][1]) > 0 for series in read)
