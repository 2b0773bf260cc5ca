"""One reconcile against a strict fake API: what is called, what is written, what a restart does."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from controller_rig import KEY, Rig
from operator_world import manifest

from shardwise_operator.actions import LostWorker
from shardwise_operator.port import ApiError


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
    assert 6.0 <= await rig.reconcile() <= 10.0
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
    assert (rig.status["state"], rig.status["reason"]) == ("Invalid", "InvalidSpec")
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


async def test_an_api_server_in_trouble_is_the_queues_affair():
    rig = Rig()
    await rig.add()
    rig.cluster.refuse["get", "optimizationjobs"] = ApiError(500, "InternalError", "etcd")
    with pytest.raises(ApiError):
        await rig.reconcile()


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
