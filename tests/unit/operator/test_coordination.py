"""Who may speak to the coordinator: a token's pod, alive, and labelled as a job's worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fake_cluster import FakeCluster
from operator_world import manifest

from shardwise.coordinator import Coordinator, Credential, Identity, PoolAssignment, Refused
from shardwise_operator import names
from shardwise_operator.actions import DrainTask, LostWorker, OpenTask, ResizeTask
from shardwise_operator.coordination import POD_NAME, POD_UID, Coordination
from shardwise_operator.observe import Asked, job_view
from shardwise_operator.port import ApiError
from shardwise_operator.render.pods import labels, owner_reference

NAMED = {"namespace": "ns", "name": "digits"}
HELLO = Credential(token="secret")


def review(**changes):
    return {
        "authenticated": True,
        "audiences": ["shardwise-coordinator"],
        "user": {
            "username": "system:serviceaccount:ns:default",
            "extra": {POD_NAME: ["digits-1"], POD_UID: ["uid-1"]},
        },
        **changes,
    }


def pod(uid="uid-1", namespace="ns", **changes):
    job = job_view({"metadata": {"namespace": namespace, "name": "digits", "uid": "job-uid"}})
    meta = {
        "name": "digits-1",
        "namespace": namespace,
        "uid": uid,
        "labels": {**labels(job), names.INDEX: "1"},
        "ownerReferences": [owner_reference(job)],
    }
    return {"metadata": {**meta, **changes}}


class Pods:
    def __init__(self, found):
        self.found = found

    def pod(self, namespace, name):
        return self.found if (namespace, name) == ("ns", "digits-1") else None


def coordination(answer, found, changed=None):
    cluster = FakeCluster()
    cluster.review = answer
    job = {"metadata": {"namespace": "ns", "name": "digits", "uid": "job-uid"}}
    cluster.objects["optimizationjobs", "ns", "digits"] = job
    return cluster, Coordination(
        cluster,
        Pods(found),
        changed.append if changed is not None else lambda key: None,
        grace_seconds=1,
        report_seconds=1,
    )


async def test_a_worker_on_its_way_out_may_still_speak():
    _, subject = coordination(review(), pod(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert (await subject.authenticate(HELLO)).worker == "digits-1"


async def test_a_living_worker_is_who_its_pod_says():
    cluster, subject = coordination(review(), pod())
    identity = Identity(task="job-uid", worker="digits-1", index=1)
    assert await subject.authenticate(HELLO) == identity
    reviewed = ("review", "tokenreviews", "shardwise-coordinator")
    assert cluster.calls == [reviewed, ("get", "optimizationjobs", "digits")]
    # Once its task is open, the API server need not be asked for the job.
    subject.open(job_view({**manifest(), "metadata": {**NAMED, "uid": "job-uid"}}), OPEN)
    assert await subject.authenticate(HELLO) == identity
    assert cluster.calls[2:] == []  # Nor for a review that was just made.


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (review(authenticated=False), pod()),
        (review(audiences=["other"]), pod()),
        (review(audiences=None), pod()),
        (review(user={"username": "admin"}), pod()),
        (review(user={"username": "system:serviceaccount:ns:default"}), pod()),
        (review(), None),
        (review(), pod(uid="uid-of-its-successor")),
        (review(), pod(labels={})),
        (review(), pod(ownerReferences=[])),
        (review(), pod(name="digits-01")),
        (review(), pod(namespace="evil")),
        ({}, pod()),
    ],
)
async def test_everyone_else_is_refused(answer, found):
    _, subject = coordination(answer, found)
    with pytest.raises(Refused) as refused:
        await subject.authenticate(HELLO)
    assert "secret" not in str(refused.value)


async def test_without_a_verdict_nobody_is_refused():
    cluster, subject = coordination(review(), pod())
    cluster.refuse["review", "tokenreviews"] = ApiError(500, "InternalError", "etcd")
    with pytest.raises(ApiError):
        await subject.authenticate(HELLO)


async def test_a_pod_that_names_a_job_of_another_namespace_is_refused():
    cluster, subject = coordination(review(), pod())
    cluster.objects.clear()  # The job that it names is not in its namespace,
    with pytest.raises(Refused, match="no job digits"):
        await subject.authenticate(HELLO)
    subject.open(job_view(manifest()), OPEN)  # but in `default`.
    with pytest.raises(Refused, match="no job digits"):
        await subject.authenticate(HELLO)
    cluster.refuse["get", "optimizationjobs"] = ApiError(500, "InternalError", "etcd")
    subject.close(job_view(manifest()), "x", "y")
    with pytest.raises(ApiError):
        await subject.authenticate(HELLO)


OPEN = OpenTask(workers=4, min_workers=2, trainer={"entrypoint": "a:b"}, generation_floor=2)


async def test_tasks_are_jobs():
    _, subject = coordination(review(), pod())
    job = job_view(manifest())
    subject.open(job, OPEN)
    report = subject.report("job-uid")
    assert report is not None
    assert (report.workers, report.generation) == (4, 2)
    subject.close(job, "Completed", "done")
    assert subject.report("job-uid") is None
    assert subject.asked("job-uid") is None


@pytest.mark.parametrize("compression", [None, {"steps": [{"name": "int8", "quantize": {}}]}])
async def test_workers_get_trainer_and_compression_apart(compression, monkeypatch):
    _, subject = coordination(review(), pod())
    opened = []
    monkeypatch.setattr(Coordinator, "open_task", lambda _, assignment: opened.append(assignment))
    trainer = {"entrypoint": "a:b"}
    accepted = trainer if compression is None else {**trainer, "compression": compression}
    subject.open(job_view(manifest()), replace(OPEN, trainer=accepted))
    assert (opened[0].trainer, opened[0].compression) == (trainer, compression)


async def test_what_was_asked_for_is_remembered():
    _, subject = coordination(review(), pod())
    job = job_view(manifest())
    subject.open(job, replace(OPEN, generation_floor=0))
    assert subject.asked("job-uid") == Asked(workers=4, min_workers=2)
    subject.resize(job, ResizeTask(workers=6, min_workers=3))
    subject.lost(job, LostWorker(worker="digits-9", uid="u9", cause="Unreachable"))
    subject.drain(job, DrainTask(reason="the job is suspended"))
    assert subject.asked("job-uid") == Asked(
        workers=6, min_workers=3, draining=True, lost=frozenset({"u9"})
    )
    report = subject.report("job-uid")
    assert report is not None
    assert report.workers == 6
    assert "suspended" in report.waiting


async def test_a_task_that_ran_before_is_given_time_for_its_workers_to_come_back():
    clock = [100.0]
    _, subject = coordination(review(), pod())
    subject._monotonic = lambda: clock[0]
    job = job_view(manifest())
    subject.open(job, OPEN)
    assert subject.asked("job-uid") == Asked(workers=4, min_workers=2, settled=False)
    clock[0] += 2.0  # The rig's second for adoption, and the margin.
    assert subject.asked("job-uid") == Asked(workers=4, min_workers=2)
    subject.forget("job-uid", "x", "y")
    subject.open(job, replace(OPEN, generation_floor=0))
    assert subject.asked("job-uid") == Asked(workers=4, min_workers=2)


async def test_an_opened_task_goes_on_from_what_the_status_kept():
    _, subject = coordination(review(), pod())
    subject.open(
        job_view(manifest()),
        replace(OPEN, recoveries={"Killed": 2}, seconds={"productive": 5.0}, lost_steps=3),
    )
    report = subject.report("job-uid")
    assert report is not None
    assert (report.recoveries, report.seconds, report.lost_steps) == (
        {"Killed": 2},
        {"productive": 5.0},
        3,
    )


TASKS = {"list": [{"name": "one"}, {"name": "two", "parameters": {"hidden": 8}}]}


async def test_a_job_with_tasks_is_a_pool(monkeypatch):
    _, subject = coordination(review(), pod())
    opened = []
    monkeypatch.setattr(Coordinator, "open_pool", lambda _, assignment: opened.append(assignment))
    trainer = {"entrypoint": "a:b", "shards": 4}
    action = replace(
        OPEN,
        trainer={**trainer, "tasks": TASKS},
        record="cmVjb3Jk",
        recoveries={"Killed": 2},
        seconds={"productive": 5.0},
        lost_steps=3,
        checkpoint={"everySteps": 5},
        detection_seconds=0.7,
    )
    subject.open(job_view(manifest(output={"volume": {"emptyDir": {}}})), action)
    assert opened == [
        PoolAssignment(
            pool="job-uid",
            name="digits",
            workers=4,
            trainer=trainer,
            tasks=TASKS,
            output={"volume": {"emptyDir": {}}},
            checkpoint={"everySteps": 5},
            report_seconds=1,
            detection_seconds=0.7,
            began=True,
            record="cmVjb3Jk",
            recoveries={"Killed": 2},
            seconds={"productive": 5.0},
            lost_steps=3,
        )
    ]
    subject.open(job_view(manifest()), replace(action, generation_floor=0, record=""))
    assert not opened[1].began


async def test_a_pool_is_asked_for_and_told_of_like_a_task():
    _, subject = coordination(review(), pod())
    job = job_view(manifest())
    trainer = {"entrypoint": "a:b", "shards": 4, "tasks": TASKS}
    subject.open(job, replace(OPEN, trainer=trainer, generation_floor=0))
    report = subject.report("job-uid")
    assert report is not None
    assert report.tasks is not None
    assert (report.workers, report.tasks.total, report.tasks.pending) == (4, 2, 2)
    subject.resize(job, ResizeTask(workers=6, min_workers=3))
    subject.drain(job, DrainTask(reason="the job is suspended"))
    assert subject.asked("job-uid") == Asked(workers=6, min_workers=3, draining=True)
    assert subject.report("job-uid").workers == 6
    subject.close(job, "Completed", "done")
    assert subject.report("job-uid") is None


async def test_a_record_that_cannot_be_read_ends_the_job_with_the_remedy():
    _, subject = coordination(review(), pod())
    trainer = {"entrypoint": "a:b", "shards": 4, "tasks": TASKS}
    subject.open(job_view(manifest()), replace(OPEN, trainer=trainer, record="?"))
    async with asyncio.timeout(20):  # it is read beside the loop
        while (report := subject.report("job-uid")) is None or report.failure is None:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.005)
    assert report.failure.reason == "InvalidTasks"
    assert "create it again" in report.failure.message
