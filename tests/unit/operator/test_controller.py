"""One reconcile against a strict fake API: what is called, what is written, what a restart does."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fake_cluster import FakeCluster
from operator_world import START, manifest

from shardwise.coordinator.report import Progress, TaskReport, TaskRow, TasksReport
from shardwise_operator.actions import LostWorker
from shardwise_operator.apply import Applier
from shardwise_operator.controller import Controller
from shardwise_operator.jobs import JobStore
from shardwise_operator.metrics import Metrics
from shardwise_operator.observe import Asked
from shardwise_operator.port import ApiError
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
        return [pod for pod in found if pod["metadata"]["labels"]["shardwise.dev/job-name"] == job]

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


async def test_a_job_is_brought_up_with_one_write_and_pods_in_parallel():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    assert rig.made("pods") == [f"digits-{n}" for n in range(4)]
    assert rig.made("services") == ["digits"]
    assert rig.writes() == 1
    assert rig.cluster.most_creating == 2  # The bound.
    calls = len(rig.cluster.calls)
    await rig.reconcile()
    assert len(rig.cluster.calls) == calls  # Nothing to do costs nothing.
    assert rig.events == ["WaitingForWorkers"]


@pytest.mark.parametrize("at", range(1, 9))
async def test_a_crash_at_any_call_leaves_one_set_of_pods(at):
    rig = Rig()
    await rig.add()
    calls = 0

    class Killed(BaseException):
        pass

    def count(verb, kind, name):
        nonlocal calls
        calls += 1
        rig.cluster.calls.append((verb, kind, name))
        if calls == at:
            raise Killed

    original, rig.cluster._note = rig.cluster._note, count
    with contextlib.suppress(Killed):
        await rig.reconcile()
    rig.cluster._note = original
    rig.restart()
    await rig.reconcile()
    await rig.reconcile()
    assert rig.made("pods") == [f"digits-{n}" for n in range(4)]
    assert rig.status["state"] == "Pending"
    assert rig.reports["job-uid"].workers == 4


async def test_progress_alone_is_written_each_percent_or_each_ten_seconds():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    rig.progress(1)
    await rig.reconcile()
    before = rig.writes()
    rig.time = 3.0
    rig.progress(5)
    assert await rig.reconcile() == pytest.approx(7.0)
    assert rig.writes() == before
    rig.progress(20)
    await rig.reconcile()
    assert rig.writes() == before + 1
    rig.time = 14.0
    rig.progress(21)
    await rig.reconcile()
    assert rig.writes() == before + 2
    assert rig.status["progress"]["step"] == 21


async def test_a_deleted_job_that_no_event_told_of_gets_no_pods():
    rig = Rig()
    await rig.add()
    del rig.cluster.objects["optimizationjobs", *KEY]
    assert await rig.reconcile() is None
    assert rig.made("pods") == []
    assert len(rig.jobs) == 0


async def test_a_deleted_jobs_task_is_closed():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    rig.jobs.remove(KEY)
    await rig.reconcile()
    assert rig.forgotten == ["job-uid"]


async def test_a_job_deleted_under_a_write_is_dropped():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    del rig.cluster.objects["optimizationjobs", *KEY]
    rig.progress(1)
    assert await rig.reconcile() is None
    assert rig.forgotten == ["job-uid"]


async def test_a_quota_shows_in_the_same_reconcile_and_is_tried_again():
    rig = Rig()
    await rig.add()
    rig.cluster.refuse["create", "pods"] = ApiError(403, "Forbidden", "exceeded quota: tight")
    assert await rig.reconcile() == 10.0
    assert rig.status["reason"] == "QuotaExceeded"
    tries = len(rig.cluster.calls)
    rig.time = 5.0
    await rig.reconcile()
    assert len(rig.cluster.calls) == tries  # No storm.
    rig.cluster.refuse.clear()
    rig.time = 10.0
    await rig.reconcile()
    assert len(rig.made("pods")) == 4


async def test_an_inadmissible_template_is_explained():
    rig = Rig()
    await rig.add()
    rig.cluster.refuse["create", "pods"] = ApiError(422, "Invalid", "limits: bad")
    await rig.reconcile()
    assert rig.status["reason"] == "ContainerConfigError"
    assert "spec.template" in rig.status["message"]


async def test_the_pod_of_an_earlier_job_of_the_name_keeps_its_index():
    rig = Rig()
    await rig.add()
    labels = {"shardwise.dev/job-uid": "earlier", "shardwise.dev/job-name": "digits"}
    body = {"metadata": {"name": "digits-1", "labels": {**labels, "shardwise.dev/index": "1"}}}
    await rig.cluster.create("pods", "default", body)
    await rig.reconcile()
    assert rig.made("pods") == [f"digits-{n}" for n in range(5)]
    assert rig.status["workers"]["names"] == ["digits-0", "digits-2", "digits-3", "digits-4"]


async def test_a_pod_of_somebody_else_with_the_name_is_waited_for():
    rig = Rig()
    await rig.add()
    body = {"metadata": {"name": "digits-1", "labels": {"shardwise.dev/job-name": "other"}}}
    await rig.cluster.create("pods", "default", body)
    assert await rig.reconcile() == 2.0
    assert rig.status["reason"] == "NameTaken"
    del rig.cluster.objects["pods", "default", "digits-1"]
    rig.time = 2.0
    await rig.reconcile()
    assert len(rig.made("pods")) == 4


async def test_an_api_server_in_trouble_is_the_queues_affair():
    rig = Rig()
    await rig.add()
    rig.cluster.refuse["create", "pods"] = ApiError(500, "InternalError", "etcd")
    with pytest.raises(ApiError):
        await rig.reconcile()


async def test_a_configmap_is_polled_for_and_its_content_is_hashed():
    rig = Rig()
    await rig.add(trainer={"codeFrom": {"configMap": "code"}})
    assert await rig.reconcile() == 5.0
    assert rig.status["reason"] == "ConfigMapMissing"
    await rig.cluster.create(
        "configmaps", "default", {"metadata": {"name": "code"}, "data": {"train.py": "x = 1"}}
    )
    await rig.reconcile()
    assert len(rig.status["code"]["sha256"]) == 64
    assert len(rig.made("pods")) == 4


async def test_an_invalid_job_costs_one_write():
    rig = Rig()
    await rig.add(workers={"replicas": 9})
    for _ in range(3):
        assert await rig.reconcile() is None
    assert rig.status["state"] == "Invalid"
    assert rig.writes() == 1


async def test_a_failed_pod_ends_the_job_and_frees_the_others():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    rig.progress(1)
    await rig.reconcile()
    said = {"outcome": "failed", "reason": "UserCodeFailed", "message": "KeyError: 1"}
    ended = {"exitCode": 70, "message": json.dumps({**said, "detail": "line"})}
    rig.cluster.objects["pods", "default", "digits-2"]["status"] = {
        "phase": "Failed",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
    }
    rig.restart()
    await rig.reconcile()
    assert rig.status["state"] == "Failed"
    assert rig.status["lastFailure"]["logTail"] == "line"
    await rig.reconcile()
    assert rig.made("pods") == ["digits-2"]
    await rig.reconcile()
    assert rig.made("pods") == ["digits-2"]


async def test_a_lost_pod_is_replaced_and_the_coordinator_hears_of_it():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    rig.progress(1)
    everyone = tuple(rig.made("pods"))
    rig.reports["job-uid"] = replace(rig.reports["job-uid"], connected=everyone, members=everyone)
    del rig.cluster.objects["pods", "default", "digits-1"]
    await rig.reconcile()
    assert rig.told == [LostWorker(worker="digits-1", uid="", cause="Preempted")]
    assert rig.made("pods") == list(everyone)


async def test_a_finished_job_is_deleted_by_its_uid():
    rig = Rig()
    await rig.add(ttlSecondsAfterFinished=60)
    await rig.reconcile()
    rig.reports["job-uid"] = replace(
        rig.reports["job-uid"], state="finished", generation=1, result={"steps": 5}
    )
    assert await rig.reconcile() == 5.0  # For the pod that wrote it.
    rig.time = 5.0
    await rig.reconcile()
    assert rig.status["state"] == "Succeeded"
    rig.time = 35.0
    assert await rig.reconcile() == 30.0
    rig.time = 65.0
    await rig.reconcile()
    assert rig.made("optimizationjobs") == []
    await rig.reconcile()  # The cache still has it; the API server does not.


async def test_where_the_time_went_is_written_no_more_often_than_progress():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    rig.progress(1)
    await rig.reconcile()
    before = rig.writes()
    rig.time = 1.0
    report = rig.reports["job-uid"]
    rig.reports["job-uid"] = replace(report, seconds={"productive": 1.0})
    assert await rig.reconcile() == pytest.approx(9.0)
    assert rig.writes() == before


async def test_a_job_of_the_same_name_is_another_job():
    rig = Rig()
    await rig.add()
    await rig.reconcile()
    rig.cluster.objects.clear()
    body = manifest()
    body["metadata"]["uid"] = "other-uid"
    rig.jobs.remove(KEY)
    rig.jobs.put(await rig.cluster.create("optimizationjobs", "default", body))
    await rig.reconcile()
    assert rig.forgotten == ["job-uid"]
    assert "other-uid" in rig.reports


# A pool's writes.


def pool_report(
    rig: Rig, ended: int, *, running: int = 4, members: int = 4, **changes: Any
) -> None:
    """The pool after so many of a hundred tasks."""
    workers = tuple(f"digits-{n}" for n in range(4))
    report = rig.reports["job-uid"]
    rig.reports["job-uid"] = replace(
        report,
        **{
            "state": "training",
            "generation": 1,
            "connected": workers,
            "members": workers[:members],
            "tasks": TasksReport(
                total=100,
                pending=100 - ended - running,
                running=running,
                succeeded=ended,
                failed=0,
                stopped=0,
                record=f"record of {ended}",
                utilization=0.5,
            ),
            **changes,
        },
    )


async def running_pool() -> Rig:
    rig = Rig()
    await rig.add(tasks={"sweep": {"parameters": [{"name": "n", "values": list(range(100))}]}})
    await rig.reconcile()
    pool_report(rig, 0)
    await rig.reconcile()
    assert rig.status["state"] == "Running"
    return rig


async def test_a_record_is_written_within_two_seconds_and_not_with_each_task():
    rig = await running_pool()
    before = rig.writes()
    for task in range(1, 41):  # twenty a second
        rig.time += 0.05
        # Meanwhile one worker is on its way to the next task.
        pool_report(rig, task, members=4 - task % 2)
        await rig.reconcile()
    assert rig.time == pytest.approx(2.0)
    pool_report(rig, 40)
    await rig.reconcile()
    assert rig.writes() == before + 1
    assert rig.status["tasks"]["record"] == "record of 40"
    assert rig.status["tasks"]["succeeded"] == 40
    assert rig.status["message"] == "4 workers at 4 of 100 tasks; 40 ended"
    pool_report(rig, 41)
    assert await rig.reconcile() == pytest.approx(2.0)
    assert rig.writes() == before + 1


async def test_a_record_waits_for_the_bucket_that_all_jobs_share():
    rig = await running_pool()
    rig.controller._bucket = TokenBucket(0.5, lambda: rig.time)
    assert rig.controller._bucket.take() == 0.0
    rig.time = 2.5
    assert rig.controller._bucket.take() == 0.0  # another job's
    pool_report(rig, 1)
    before = rig.writes()
    assert await rig.reconcile() == pytest.approx(2.0)
    assert rig.writes() == before
    rig.time += 2.0
    await rig.reconcile()
    assert rig.status["tasks"]["record"] == "record of 1"


async def test_rows_of_running_tasks_are_progress():
    rig = await running_pool()
    before = rig.writes()
    tasks = rig.reports["job-uid"].tasks
    rig.time = 3.0
    running = TaskRow(name="task-0", state="Running", step=7)
    pool_report(rig, 0, tasks=replace(tasks, rows=(running,), utilization=0.75))
    assert await rig.reconcile() == pytest.approx(7.0)
    assert rig.writes() == before
    rig.time = 10.0
    await rig.reconcile()
    assert rig.status["tasks"]["items"][0]["step"] == 7


async def test_what_is_no_task_is_written_at_once():
    rig = await running_pool()
    before = rig.writes()
    pool_report(rig, 1, recoveries={"Killed": 1})
    await rig.reconcile()
    assert rig.writes() == before + 1
    assert rig.status["recoveries"] == 1


async def test_a_pool_goes_on_from_its_record_after_a_restart():
    rig = await running_pool()
    rig.time = 2.0
    pool_report(rig, 12)
    await rig.reconcile()
    rig.restart()
    await rig.reconcile()
    assert (rig.opened[-1].record, rig.opened[-1].generation_floor) == ("record of 12", 1)
    assert len(rig.made("pods")) == 4


async def test_a_moment_without_tasks_is_none_and_a_while_is():
    rig = await running_pool()
    for _ in range(4):
        rig.time += 4.0
        pool_report(rig, 1, running=0, members=0, connected=())
        assert await rig.reconcile() == pytest.approx(5.0)
        assert rig.status["state"] == "Running"
        pool_report(rig, 2)
        await rig.reconcile()
    pool_report(rig, 3, running=0, members=0, connected=(), state="waiting")
    await rig.reconcile()
    rig.time += 5.0
    await rig.reconcile()
    assert rig.status["state"] != "Running"


# What its entrypoint takes.


async def test_what_an_example_does_not_take_is_refused_before_any_pod():
    rig = Rig()
    await rig.add(
        trainer={"entrypoint": "shardwise.examples.digits:task", "parameters": {"wdith": 3}}
    )
    assert await rig.reconcile() is None
    assert rig.made("pods") == []
    assert rig.status["state"] == "Invalid"
    assert "spec.trainer.parameters.wdith" in rig.status["message"]


async def test_code_that_is_corrected_is_accepted():
    rig = Rig()
    code = {"metadata": {"name": "mine"}, "data": {"train.py": "def task():\n    return None\n"}}
    await rig.cluster.create("configmaps", "default", code)
    trainer = {
        "entrypoint": "train:task",
        "codeFrom": {"configMap": "mine"},
        "parameters": {"hidden": 3},
    }
    await rig.add(trainer=trainer)
    assert await rig.reconcile() == 5.0
    assert rig.status["state"] == "Invalid"
    good = {"train.py": "def task(hidden):\n    return None\n"}
    await rig.cluster.patch("configmaps", "default", "mine", {"data": good})
    await rig.reconcile()
    assert len(rig.made("pods")) == 4
    assert rig.status["state"] == "Pending"


async def test_code_in_an_image_of_the_users_is_not_looked_at():
    rig = Rig()
    trainer = {
        "entrypoint": "shardwise.examples.digits:task",
        "parameters": {"wdith": 3},
        "image": "mine:1",
    }
    await rig.add(trainer=trainer)
    await rig.reconcile()
    assert len(rig.made("pods")) == 4
