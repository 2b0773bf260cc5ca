"""A small fleet that tells of itself as the product does: real exporters, scripted jobs.

One job trains with four workers, of which the last is slow; workers are killed, hang, join. Others
wait, have ended, cannot write checkpoints. Everything is served over HTTP by the operator's own
application and the workers' own exporter.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from server import target

from shardwise.coordinator import TaskReport
from shardwise.coordinator.report import CheckpointState, Loss, Progress, TaskRow, TasksReport
from shardwise.worker.metrics import WorkerMetrics
from shardwise_operator.metrics import Metrics, Sources, serving
from shardwise_operator.sites import Site

TICK_SECONDS = 0.1
STEP_SECONDS = 0.05
BATCH = 256
STEPS = 200_000
WORKERS = 4
TASKS = 100
CYCLE_SECONDS, KILL_AT, JOIN_AT = 8.0, 3.0, 5.0
"""When in each cycle a worker is killed, and when its successor joins."""
STRAGGLER = 3


class Fleet:
    """The jobs and their reports at one moment of a script; a tick moves it on."""

    def __init__(self) -> None:
        self.began = time.time()
        self.ticks = 0
        self.jobs = [
            job(
                "team-a",
                "digits",
                self.began,
                state="Running",
                checkpoint={"everySteps": 400},
                tasks={"objectives": [{"metric": "accuracy", "direction": "Maximize"}]},
            ),
            job("team-a", "full-disk", self.began, state="Running", checkpoint={"everySeconds": 9}),
            job("team-b", "starved", self.began, state="Waiting"),
            job("team-b", "done", self.began, state="Succeeded"),
            job("team-b", "broken", self.began, state="Failed"),
        ]
        self.jobs[3]["status"] |= {
            "progress": {"step": 500, "totalSteps": 500, "loss": "0.031"},
            "goodputSeconds": [
                {"kind": "productive", "seconds": "120"},
                {"kind": "recovery", "seconds": "2.5"},
            ],
            "recoveriesByCause": [{"cause": "Preempted", "count": 2}],
        }
        # Of a job that goes on training, so that its dashboard has everything.
        self.jobs[0]["status"]["compression"] = {
            "rows": [
                _model("trained", "0.9778", 102_696, 25_514, "0.061"),
                _model("prune", "0.9722", 24_712, 5_480, "0.059"),
                _model("gptq", "0.9694", 7_960, 5_311, "0.060"),
            ]
        }
        self.reports = {
            "digits": _report(),
            "full-disk": _report(),
            "starved": replace(_report(), state="waiting", progress=None, members=()),
        }
        self.seconds = {name: dict[str, float]() for name in ("digits", "full-disk")}
        self.metrics = Metrics()
        self.metrics.observe(
            Sources(
                jobs=lambda: tuple(self.jobs),
                queue_depth=lambda: self.ticks % 3,
                watch_age=lambda: 0.5,
                loop_lag=lambda: 0.002,
                report=self.reports.get,
                queue_oldest_age=lambda: 0.1 * (self.ticks % 3),
                leads=lambda: True,
            )
        )
        self.clocks = [0.0] * WORKERS
        self.workers = [
            WorkerMetrics("team-a/digits", index, lambda index=index: self.clocks[index])
            for index in range(WORKERS)
        ]

    @property
    def elapsed(self) -> float:
        return self.ticks * TICK_SECONDS

    def tick(self) -> None:
        """A tenth of a second of everybody's life."""
        self.ticks += 1
        self._operator()
        # Again and again, so that Prometheus sees it whenever it has begun.
        lost = KILL_AT <= self.elapsed % CYCLE_SECONDS < JOIN_AT
        self._train("digits", lost=lost)
        self._train("full-disk", lost=False)
        for index, worker in enumerate(self.workers):
            if self.ticks == 1:
                worker.phase("training", index)
            if not (lost and index == 1):
                self._steps(index, worker)
        if self.ticks == 1:
            for found in self.jobs:
                report = self.reports.get(found["metadata"]["uid"])
                if report is not None:
                    self.metrics.reported(found, report)

    def _operator(self) -> None:
        self.metrics.api_call("patch", "200")
        self.metrics.api_call("create", "500" if self.ticks % 5 == 0 else "201")
        self.metrics.status_write("coalesced" if self.ticks % 4 else "sent")
        self.metrics.event("sent")
        with contextlib.suppress(ConnectionError), self.metrics.reconcile_time():
            if self.ticks % 10 == 0:
                raise ConnectionError("the API server is away")

    def _train(self, name: str, *, lost: bool) -> None:
        step = int(self.elapsed / STEP_SECONDS)
        now = self.began + self.elapsed
        report = self.reports[name]
        progress = Progress(
            step=step,
            total_steps=STEPS,
            epoch=step // 100,
            loss=2.3 * math.exp(-step / 400),
            samples_per_second=BATCH / STEP_SECONDS,
            eta_seconds=(STEPS - step) * STEP_SECONDS,
            at=now,
            metrics={},
        )
        kind = "recovery" if lost else "checkpoint" if self.ticks % 40 == 0 else "productive"
        seconds = self.seconds[name]
        seconds[kind] = seconds.get(kind, 0.0) + TICK_SECONDS
        cycles, at = divmod(self.elapsed, CYCLE_SECONDS)
        kills, joins = int(cycles + (at >= KILL_AT)), int(cycles + (at >= JOIN_AT))
        members = tuple(f"{name}-{i}" for i in range(WORKERS) if not (lost and i == 1))
        failed = name == "full-disk"
        ended = min(step // 200, TASKS - WORKERS)
        written = 0 if failed else step - step % 400
        self.reports[name] = replace(
            report,
            generation=1 + kills + joins,
            progress=progress,
            members=members,
            recoveries={"Killed": kills, "Joined": joins},
            losses=tuple(
                Loss(worker=f"{name}-1", index=1, cause="Killed", at=kill, step=9, seconds=0.31)
                for kill in range(joins)[-16:]
            ),
            seconds=dict(seconds),
            tasks=_tasks(ended) if name == "digits" else None,
            checkpoint=CheckpointState(
                step=written,
                at=self.began + written * STEP_SECONDS,
                bytes=1_400_000,
                seconds=0.02,
                error="no space left on the volume" if failed else "",
            ),
        )

    def _steps(self, index: int, worker: WorkerMetrics) -> None:
        """Two steps, all of the same length: who computes for longer waits for less."""
        own = 0.042 if index == STRAGGLER else 0.02
        for _ in range(2):
            worker.begin_step()
            self.clocks[index] += own
            worker.fetched(0.002)
            worker.beat("exchanging")
            self.clocks[index] += STEP_SECONDS - own
            worker.end_step(int(self.elapsed / STEP_SECONDS))


def job(namespace: str, name: str, created: float, *, state: str, **spec: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(created - 4, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": name,
            "creationTimestamp": at,
        },
        "spec": {"trainer": {"batchSize": BATCH}, **spec},
        "status": {"state": state, "workers": {"desired": WORKERS, "min": 2, "generation": 1}},
    }


def _model(step: str, accuracy: str, size: int, nonzeros: int, latency: str) -> dict[str, Any]:
    return {
        "name": step,
        "metric": f"accuracy {accuracy}",
        "bytes": size,
        "parameters": 25_514,
        "nonzeros": nonzeros,
        "macs": 25_344,
        "latencyMilliseconds": latency,
    }


def _tasks(ended: int) -> TasksReport:
    """The tasks of a pool after so many have ended, of which one in ten fails."""
    failed = ended // 10
    best = TaskRow(name="task-0", state="Succeeded", metrics={"accuracy": 1 - 0.5 / (1 + ended)})
    return TasksReport(
        total=TASKS,
        pending=TASKS - WORKERS - ended,
        running=WORKERS,
        succeeded=ended - failed,
        failed=failed,
        stopped=0,
        best=best,
        utilization=0.93,
    )


def _report() -> TaskReport:
    return TaskReport(
        state="training",
        generation=1,
        connected=(),
        workers=WORKERS,
        progress=None,
        failure=None,
        result=None,
    )


@contextlib.contextmanager
def served(fleet: Fleet) -> Iterator[list[dict[str, Any]]]:
    """Lets the fleet live and answer scrapes; gives what to scrape."""
    ready = threading.Event()
    stop = threading.Event()
    port: list[int] = []

    async def live() -> None:
        site = Site(serving.application(fleet.metrics.exposition, None, time.monotonic))
        await site.start(0, host="127.0.0.1")
        port.append(site.port)
        ready.set()
        try:
            while not stop.is_set():
                fleet.tick()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            await site.stop()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    try:
        assert ready.wait(30), "the fleet answers"
        workers = [worker.serve(0, "127.0.0.1") for worker in fleet.workers]
        yield [
            target(f"127.0.0.1:{port[0]}", "operator"),
            *(
                # As the chart's PodMonitor labels them.
                target(
                    f"127.0.0.1:{found}",
                    "worker",
                    namespace="team-a",
                    job_name="digits",
                    worker=str(index),
                )
                for index, found in enumerate(workers)
            ),
        ]
    finally:
        stop.set()
        thread.join(30)
