"""A controller on a strict fake API, with all that is around it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from fake_cluster import FakeCluster
from operator_world import START, manifest

from shardwise.coordinator.report import Progress, TaskReport
from shardwise_operator.apply import Applier
from shardwise_operator.controller import Controller
from shardwise_operator.jobs import JobStore
from shardwise_operator.metrics import Metrics
from shardwise_operator.observe import Asked
from shardwise_operator.render import RenderFacts
from shardwise_operator.writes import TokenBucket

KEY = ("default", "digits")
FACTS = RenderFacts(
    image="t",
    pull_policy="Never",
    coordinator_address="c:1",
    coordinator_name="c",
    certificate="PEM",
)


class Rig:
    """A controller on a fake cluster; `restart` forgets all that a process would."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.time = 0.0
        self.reports: dict[str, TaskReport] = {}
        self.asks: dict[str, Asked] = {}
        self.opened: list[Any] = []
        self.told: list[Any] = []
        self.forgotten: list[str] = []
        self.events: list[Any] = []
        self.restart()

    def restart(self) -> None:
        self.reports.clear()
        self.asks.clear()
        self.jobs = JobStore()
        for (kind, _, _), body in self.cluster.objects.items():
            if kind == "optimizationjobs":
                self.jobs.put(body)
        self.controller = Controller(
            cluster=self.cluster,
            jobs=self.jobs,
            pods=self,
            reports=self,
            applier=Applier(self.cluster, self, self, lambda: FACTS, 2),
            bucket=TokenBucket(100, lambda: self.time),
            metrics=Metrics(),
            monotonic=lambda: self.time,
            settled=lambda: True,
            now=lambda: START + timedelta(seconds=self.time),
        )

    async def add(self, **spec: Any) -> None:
        body = manifest(**spec)
        self.jobs.put(await self.cluster.create("optimizationjobs", "default", body))

    async def reconcile(self) -> float | None:
        return await self.controller.reconcile(KEY)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.objects["optimizationjobs", *KEY].get("status", {})
        return found

    def made(self, kind: str) -> list[str]:
        return sorted(name for k, _, name in self.cluster.objects if k == kind)

    def writes(self) -> int:
        return sum(call[:2] == ("patch", "optimizationjobs/status") for call in self.cluster.calls)

    # The informer, the coordinator and the recorder:

    def pods(self, namespace: str, job: str) -> list[Any]:
        found = (
            o for (k, n, _), o in self.cluster.objects.items() if (k, n) == ("pods", namespace)
        )
        return [
            pod for pod in found if pod["metadata"]["labels"].get("shardwise.dev/job-name") == job
        ]

    def report(self, uid: str) -> TaskReport | None:
        return self.reports.get(uid)

    def asked(self, uid: str) -> Asked | None:
        return self.asks.get(uid)

    def resize(self, job: Any, action: Any) -> None:
        self.told.append(action)
        self.asks[job.uid] = Asked(workers=action.workers, min_workers=action.min_workers)

    def drain(self, job: Any, action: Any) -> None:
        self.told.append(action)
        self.asks[job.uid] = replace(self.asks[job.uid], draining=True)

    def lost(self, job: Any, action: Any) -> None:
        self.told.append(action)
        report = self.reports[job.uid]
        connected = tuple(name for name in report.connected if name != action.worker)
        self.reports[job.uid] = replace(report, connected=connected, members=connected)

    def open(self, job: Any, action: Any) -> None:
        self.opened.append(action)
        self.asks[job.uid] = Asked(workers=action.workers, min_workers=action.min_workers)
        self.reports[job.uid] = TaskReport(
            state="waiting",
            generation=action.generation_floor,
            connected=(),
            workers=action.workers,
            progress=None,
            failure=None,
            result=None,
        )

    def close(self, job: Any, reason: str, message: str) -> None:
        self.forget(job.uid, reason, message)

    def forget(self, uid: str, reason: str, message: str) -> None:
        self.forgotten.append(uid)
        self.reports.pop(uid, None)
        self.asks.pop(uid, None)

    def record(self, job: Any, event: Any) -> None:
        self.events.append(event.reason)

    def progress(self, step: int) -> None:
        report = self.reports["job-uid"]
        progress = Progress(
            step=step,
            total_steps=1000,
            epoch=0,
            loss=1.0,
            samples_per_second=1.0,
            eta_seconds=None,
            at=START.timestamp() + self.time,
            metrics={},
        )
        self.reports["job-uid"] = replace(report, state="training", generation=1, progress=progress)
