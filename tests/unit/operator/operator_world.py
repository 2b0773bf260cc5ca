"""A world of records for the tests of decisions: a job, its pods, a coordinator, and a clock."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shardwise.coordinator.report import Failure, Progress, TaskReport
from shardwise_operator.actions import (
    CloseTask,
    CreatePod,
    CreateService,
    Decision,
    DeletePod,
    OpenTask,
)
from shardwise_operator.decide import decide
from shardwise_operator.observe import (
    ConfigMapView,
    CreationError,
    Observed,
    PodView,
    job_view,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
SHA = "a" * 64


def manifest(**spec: Any) -> dict[str, Any]:
    """A job's manifest; keywords replace parts of its spec."""
    trainer = {"entrypoint": "a.b:task", "epochs": 2, "batchSize": 8, "shards": 8}
    trainer.update(spec.pop("trainer", {}))
    return {
        "apiVersion": "shardwise.dev/v1alpha1",
        "kind": "OptimizationJob",
        "metadata": {
            "name": "digits",
            "namespace": "default",
            "uid": "job-uid",
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"trainer": trainer, "workers": {"replicas": 4}, **spec},
    }


def told(outcome: str = "succeeded", **content: Any) -> str:
    if outcome == "succeeded":
        content = {"result": {"steps": 20, "weightsSha256": SHA, "metrics": {"accuracy": 0.98}}}
    return json.dumps({"outcome": outcome, **content})


class World:
    """What a cluster would hold; `step` is one reconcile."""

    def __init__(self, **spec: Any) -> None:
        self.raw = manifest(**spec)
        self.pods: dict[str, PodView] = {}
        self.service = False
        self.report: TaskReport | None = None
        self.failure_seen: datetime | None = None
        self.configmap: ConfigMapView | None = None
        self.errors: tuple[CreationError, ...] = ()
        self.settled = True
        self.now = START
        self.created: list[int] = []
        self.closed: list[CloseTask] = []

    @property
    def status(self) -> dict[str, Any]:
        return self.raw.get("status") or {}

    def observed(self) -> Observed:
        failed = self.report is not None and self.report.failure is not None
        self.failure_seen = (self.failure_seen or self.now) if failed else None
        return Observed(
            job=job_view(copy.deepcopy(self.raw)),
            pods=tuple(sorted(self.pods.values(), key=lambda pod: pod.index)),
            now=self.now,
            service_exists=self.service,
            configmap=self.configmap,
            report=self.report,
            failure_seen=self.failure_seen,
            settled=self.settled,
            creation_errors=self.errors,
        )

    def step(self) -> Decision:
        decision = decide(self.observed())
        for action in decision.actions:
            match action:
                case CreateService():
                    self.service = True
                case CreatePod(index=index, trainer=trainer):
                    name = f"digits-{index}"
                    assert name not in self.pods
                    uid = f"uid-{index}-{len(self.created)}"
                    self.pods[name] = PodView(
                        name=name, uid=uid, index=index, phase="Pending", trainer=dict(trainer)
                    )
                    self.created.append(index)
                case DeletePod(name=name, uid=uid):
                    assert self.pods[name].uid == uid
                    del self.pods[name]
                case OpenTask(workers=workers, generation_floor=floor):
                    self.report = TaskReport(
                        state="waiting",
                        generation=floor,
                        connected=(),
                        workers=workers,
                        progress=None,
                        failure=None,
                        result=None,
                    )
                case CloseTask():
                    self.report = None
                    self.closed.append(action)
        if decision.status is not None:
            self.raw["status"] = copy.deepcopy(dict(decision.status))
        return decision

    def settle(self, rounds: int = 5) -> Decision:
        """Reconciles until nothing changes."""
        for _ in range(rounds):
            before = copy.deepcopy(self.status)
            decision = self.step()
            if not decision.actions and self.status == before:
                return decision
        raise AssertionError(f"no fixpoint: {decision}")

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def pod(self, index: int, **changes: Any) -> None:
        name = f"digits-{index}"
        self.pods[name] = replace(self.pods[name], **changes)

    def run_pods(self) -> None:
        for pod in list(self.pods.values()):
            self.pod(pod.index, phase="Running", node=f"node{pod.index % 2}")

    def coordinator(self, **changes: Any) -> None:
        assert self.report is not None
        self.report = replace(self.report, **changes)

    def train(self, generation: int = 1, step: int = 5) -> None:
        """Brings the job to training."""
        self.settle()
        self.run_pods()
        self.coordinator(
            state="training",
            generation=generation,
            connected=tuple(self.pods),
            progress=Progress(
                step=step,
                total_steps=20,
                epoch=0,
                loss=0.5,
                samples_per_second=100.0,
                eta_seconds=130.0,
                at=START.timestamp(),
                metrics={},
            ),
        )
        self.settle()

    def fail_task(self, reason: str, worker: str) -> None:
        failure = Failure(reason=reason, message=f"{worker} is gone", worker=worker)
        self.coordinator(state="failed", failure=failure)

    def end_pod(self, index: int, code: int, **changes: Any) -> None:
        phase = "Failed" if code else "Succeeded"
        defaults: dict[str, Any] = {"termination": "", "finished_at": self.now}
        self.pod(index, phase=phase, exit_code=code, **{**defaults, **changes})

    def condition(self, type_: str) -> dict[str, Any]:
        return next(c for c in self.status["conditions"] if c["type"] == type_)
