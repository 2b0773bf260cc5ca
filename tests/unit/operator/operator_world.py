"""A world of records for the tests of decisions: a job, its pods, a coordinator, and a clock."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shardwise.coordinator.report import Failure, Progress, TaskReport
from shardwise_operator.actions import (
    Action,
    CloseTask,
    CreatePod,
    CreateService,
    Decision,
    DeleteJob,
    DeletePod,
    DrainTask,
    EmitEvent,
    LostWorker,
    OpenTask,
    ResizeTask,
)
from shardwise_operator.decide import decide
from shardwise_operator.observe import (
    Asked,
    ConfigMapView,
    CreationError,
    ForeignPod,
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
        content = content or {
            "result": {"steps": 20, "weightsSha256": SHA, "metrics": {"accuracy": 0.98}}
        }
    return json.dumps({"outcome": outcome, **content})


class World:
    """What a cluster would hold; `step` is one reconcile."""

    def __init__(self, **spec: Any) -> None:
        self.raw = manifest(**spec)
        self.pods: dict[str, PodView] = {}
        self.foreign: dict[int, ForeignPod] = {}
        self.service = False
        self.report: TaskReport | None = None
        self.asked: Asked | None = None
        self.opened: OpenTask | None = None
        self.lost: list[LostWorker] = []
        self.job_deleted = False
        self.dead_nodes: set[str] = set()
        self.end_seen: datetime | None = None
        self.idle_since: datetime | None = None
        self.short_since: datetime | None = None
        self.source: str | None = None
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
        ended = self.report is not None and self.report.state in ("finished", "failed")
        self.end_seen = (self.end_seen or self.now) if ended else None
        return Observed(
            job=job_view(copy.deepcopy(self.raw)),
            pods=tuple(sorted(self.pods.values(), key=lambda pod: pod.index)),
            foreign=tuple(self.foreign[index] for index in sorted(self.foreign)),
            now=self.now,
            service_exists=self.service,
            configmap=self.configmap,
            report=self.report,
            asked=self.asked,
            end_seen=self.end_seen,
            idle_since=self.idle_since,
            short_since=self.short_since,
            source=self.source,
            settled=self.settled,
            creation_errors=self.errors,
        )

    def step(self) -> Decision:
        decision = decide(self.observed())
        for action in decision.actions:
            self.apply(action)
        self.write(decision)
        return decision

    def write(self, decision: Decision) -> None:
        if decision.status is not None:
            self.raw["status"] = copy.deepcopy(dict(decision.status))

    def apply(self, action: Action) -> None:
        match action:
            case CreateService():
                self.service = True
            case CreatePod(index=index, trainer=trainer):
                name = f"digits-{index}"
                assert name not in self.pods
                assert index not in self.foreign
                uid = f"uid-{index}-{len(self.created)}"
                self.pods[name] = PodView(
                    name=name,
                    uid=uid,
                    index=index,
                    phase="Pending",
                    trainer=dict(trainer),
                    created_at=self.now,
                )
                self.created.append(index)
            case DeletePod(name=name, uid=uid):
                assert self.pods[name].uid == uid
                self.delete_pod(name)
            case OpenTask(workers=workers, min_workers=least, generation_floor=floor):
                if self.report is None:
                    self.opened = action
                    self.asked = Asked(workers=workers, min_workers=least)
                    self.report = TaskReport(
                        state="waiting",
                        generation=floor,
                        connected=(),
                        workers=workers,
                        progress=None,
                        failure=None,
                        result=None,
                        recoveries=action.recoveries,
                        seconds=action.seconds,
                        lost_steps=action.lost_steps,
                    )
            case ResizeTask(workers=workers, min_workers=least):
                assert self.asked is not None
                self.asked = replace(self.asked, workers=workers, min_workers=least)
            case DrainTask():
                assert self.asked is not None
                self.asked = replace(self.asked, draining=True)
            case LostWorker(worker=worker, uid=uid):
                assert self.asked is not None
                assert self.report is not None
                self.lost.append(action)
                self.asked = replace(self.asked, lost=self.asked.lost | {uid})
                self.disconnect(worker)
            case CloseTask():
                self.report = self.asked = None
                self.closed.append(action)
            case DeleteJob():
                self.job_deleted = True

    def delete_pod(self, name: str) -> None:
        """As an API server does: what has ended goes at once, what runs is asked to end."""
        pod = self.pods[name]
        if pod.node in self.dead_nodes:
            self.pods[name] = replace(pod, deleting=True)
            return
        del self.pods[name]
        self.disconnect(name)

    def disconnect(self, worker: str) -> None:
        if self.report is not None:
            connected = tuple(name for name in self.report.connected if name != worker)
            members = tuple(name for name in self.report.members if name != worker)
            self.report = replace(self.report, connected=connected, members=members)

    def settle(self, rounds: int = 8) -> Decision:
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
            if pod.phase == "Pending" and not pod.deleting:
                self.pod(pod.index, phase="Running", node=f"node{pod.index % 2}")

    def coordinator(self, **changes: Any) -> None:
        assert self.report is not None
        self.report = replace(self.report, **changes)

    def connect(self, generation: int = 1, step: int = 5) -> None:
        """The running pods form a group."""
        self.run_pods()
        running = tuple(sorted(name for name, pod in self.pods.items() if pod.running))
        assert self.asked is not None
        self.coordinator(
            state="training",
            generation=generation,
            connected=running,
            members=running[: self.asked.workers],
            progress=Progress(
                step=step,
                total_steps=20,
                epoch=0,
                loss=0.5,
                samples_per_second=100.0,
                eta_seconds=130.0,
                at=self.now.timestamp(),
                metrics={},
            ),
        )

    def train(self, generation: int = 1, step: int = 5) -> None:
        """Brings the job to training."""
        self.settle()
        self.connect(generation, step)
        self.settle()

    def fail_task(self, reason: str, worker: str) -> None:
        failure = Failure(reason=reason, message=f"{worker} is gone", worker=worker)
        self.coordinator(state="failed", failure=failure)

    def end_pod(self, index: int, code: int | None, **changes: Any) -> None:
        """The pod ends with this exit code; None where no container tells one."""
        self.disconnect(f"digits-{index}")
        defaults: dict[str, Any] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "exit_code": code,
            "termination": "",
            "ended_at": self.now,
        }
        self.pod(index, **{**defaults, **changes})

    def restart_operator(self) -> None:
        self.report = self.asked = None
        self.end_seen = self.idle_since = self.short_since = None

    def events(self, decision: Decision) -> list[tuple[str, str]]:
        found = [a for a in decision.actions if isinstance(a, EmitEvent)]
        return [(event.reason, event.message) for event in found]

    def condition(self, type_: str) -> dict[str, Any]:
        return next(c for c in self.status["conditions"] if c["type"] == type_)
