"""Whatever the API server answers to a creation: it is told, the rest goes on, and no storm."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from controller_rig import KEY, Rig

from shardwise_operator.backoff import pause
from shardwise_operator.port import ApiError

ANSWERS = [
    (0, "Unreachable", "connection refused"),
    (404, "NotFound", "namespaces not found"),
    (406, "NotAcceptable", "denied the request"),
    (409, "Conflict", "resourcequotas: the object has been modified"),
    (413, "RequestEntityTooLarge", "limit is 3145728"),
    (429, "TooManyRequests", "later"),
    (500, "InternalError", "failed calling webhook: no endpoints available"),
    (504, "Timeout", "request did not complete"),
    (599, "", ""),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer[0]))
async def test_a_refused_pod_is_told_in_status_condition_and_event(answer):
    rig = Rig()
    await rig.add(workers={"replicas": 2})
    rig.cluster.refuse["create", "pods"] = ApiError(*answer)
    assert await rig.reconcile() > 0
    assert rig.status["state"] == "Waiting"
    assert "pod digits-0 could not be created" in rig.status["message"]
    assert (answer[2] or "599") in rig.status["message"]
    (running,) = [c for c in rig.status["conditions"] if c["type"] == "Running"]
    assert running["reason"] == rig.status["reason"] == rig.events[-1]
    assert rig.opened  # The task is open all the same.
    rig.cluster.refuse.clear()
    rig.time = 11.0
    await rig.reconcile()
    assert len(rig.made("pods")) == 2
    await rig.reconcile()
    assert rig.status["state"] == "Pending"


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer[0]))
async def test_a_refused_service_is_told_and_made_later_and_the_pods_do_without(answer):
    rig = Rig()
    await rig.add(workers={"replicas": 2})
    rig.cluster.refuse["create", "services"] = ApiError(*answer)
    await rig.reconcile()
    assert len(rig.made("pods")) == 2
    assert "service digits could not be created" in rig.status["message"]
    assert rig.events[-1] == rig.status["reason"]
    tries = rig.cluster.calls.count(("create", "services", "digits"))
    await rig.reconcile()
    assert rig.cluster.calls.count(("create", "services", "digits")) == tries
    rig.cluster.refuse.clear()
    rig.time = 11.0
    await rig.reconcile()
    assert rig.made("services") == ["digits"]
    await rig.reconcile()
    assert rig.status["state"] == "Pending"


async def test_refusals_grow_rare_and_cost_one_call_each():
    rig = Rig()
    await rig.add(workers={"replicas": 8})
    rig.cluster.refuse["create", "pods"] = ApiError(500, "InternalError", "webhook")
    for second in range(3600):
        rig.time = float(second)
        await rig.reconcile()
    tries = [call for call in rig.cluster.calls if call[:2] == ("create", "pods")]
    assert 5 < len(tries) < 20
    rig.cluster.refuse.clear()
    rig.jobs.put(await rig.cluster.patch("optimizationjobs", *KEY, {"metadata": {"generation": 9}}))
    await rig.reconcile()  # Another spec is tried at once.
    assert len(rig.made("pods")) == 8


async def test_a_server_that_names_a_time_is_left_alone_for_it():
    rig = Rig()
    await rig.add()
    rig.cluster.refuse["create", "pods"] = ApiError(429, "TooManyRequests", "x", retry_after=77)
    assert await rig.reconcile() == 77.0


async def test_a_deletion_that_fails_keeps_the_status_from_nothing():
    rig = Rig()
    await rig.add(workers={"replicas": 2})
    await rig.reconcile()
    rig.jobs.put(
        await rig.cluster.patch("optimizationjobs", *KEY, {"spec": {"workers": {"replicas": 1}}})
    )
    rig.cluster.refuse["delete", "pods"] = ApiError(500, "InternalError", "webhook")
    with pytest.raises(ApiError):
        await rig.reconcile()
    assert rig.status["workers"]["desired"] == 1


async def test_a_config_map_that_cannot_be_read_is_told():
    rig = Rig()
    trainer = {"entrypoint": "m:task", "epochs": 1, "batchSize": 8, "shards": 8}
    await rig.add(trainer={**trainer, "codeFrom": {"configMap": "code"}})
    rig.cluster.refuse["get", "configmaps"] = ApiError(403, "Forbidden", "not for you")
    await rig.reconcile()
    assert rig.status["reason"] == "ConfigMapMissing"
    assert "not for you" in rig.status["message"]


def test_the_pause_doubles_and_differs_from_job_to_job():
    first, longest = timedelta(seconds=8), timedelta(minutes=5)
    pauses = [pause("uid", attempt, first, longest).total_seconds() for attempt in range(1, 12)]
    assert all(a * 1.1 < b for a, b in pairwise(pauses[:5]))
    assert max(pauses) <= 375
    assert pause("uid", 10**9, first, longest) <= longest * 1.25
    assert pauses[0] == pause("uid", 1, first, longest).total_seconds()
    assert len({pause(f"u{n}", 1, first, longest) for n in range(100)}) == 100
