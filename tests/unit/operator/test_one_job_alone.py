"""What is wrong with one job ends in its own status, and costs the others nothing."""

from __future__ import annotations

import pytest
from controller_rig import KEY, Rig

from shardwise_operator import controller as controller_module
from shardwise_operator.port import ApiError


async def test_an_unexpected_error_is_told_and_tried_again_with_growing_pauses(monkeypatch, caplog):
    rig = Rig()
    await rig.add()
    good = controller_module.decide

    def broken(observed):
        raise KeyError("surprise")

    monkeypatch.setattr(controller_module, "decide", broken)
    first = await rig.reconcile()
    assert rig.status["reason"] == "ReconcileFailed"
    assert "KeyError: 'surprise'" in rig.status["message"]
    assert "default/digits" in caplog.text
    assert rig.events == ["ReconcileFailed"]
    assert await rig.reconcile() > first * 1.1
    assert rig.writes() == 1
    monkeypatch.setattr(controller_module, "decide", good)
    await rig.reconcile()
    assert rig.status["state"] == "Pending"
    assert {c["reason"] for c in rig.status["conditions"]} & {"ReconcileFailed"} == set()


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_a_status_that_is_refused_fails_the_job_with_a_reason(code):
    rig = Rig()
    await rig.add()
    patch, refusals = rig.cluster.patch, []

    async def choosy(kind, namespace, name, body):
        if kind.endswith("/status") and body["status"].get("state") != "Failed":
            refusals.append(body)
            raise ApiError(code, "Invalid", "status.x: too long")
        return await patch(kind, namespace, name, body)

    rig.cluster.patch = choosy
    assert await rig.reconcile() == 0.0
    await rig.reconcile()
    assert (rig.status["state"], rig.status["reason"]) == ("Failed", "StatusRefused")
    assert "status.x: too long" in rig.status["message"]
    assert len(refusals) == 1
    await rig.reconcile()
    assert rig.made("pods") == []


async def test_a_job_that_takes_no_status_at_all_fails_all_the_same_and_without_a_storm():
    rig = Rig()
    await rig.add()
    rig.cluster.refuse["patch", "optimizationjobs/status"] = ApiError(413, "TooLarge", "etcd")
    for _ in range(6):
        await rig.reconcile()
    assert rig.made("pods") == []
    assert "StatusRefused" in rig.events
    tries = [call for call in rig.cluster.calls if call[1] == "optimizationjobs/status"]
    assert len(tries) == 2


@pytest.mark.parametrize("depth", [65, 190])
async def test_a_deep_job_is_refused_by_name(depth):
    rig = Rig()
    deep: object = 1
    for _ in range(depth):
        deep = {"a": deep}
    await rig.add(template={"spec": deep})
    await rig.reconcile()
    assert rig.status["state"] == "Invalid"
    assert "spec.template.spec.a" in rig.status["message"]
    assert "64 levels" in rig.status["message"]


async def test_a_job_that_is_too_large_is_refused_by_its_size():
    rig = Rig()
    await rig.add(template={"metadata": {"annotations": {"a": "x" * 600_000}}})
    await rig.reconcile()
    assert rig.status["state"] == "Invalid"
    assert "524288" in rig.status["message"]


@pytest.mark.parametrize(
    "status",
    [
        5,
        {"conditions": "x", "workers": []},
        {"workers": {"generation": 2**63, "desired": 2**31 - 1, "min": -4}, "specSha256": "a" * 64},
        {
            "conditions": [
                {
                    "type": "Running",
                    "status": "True",
                    "reason": "Training",
                    "message": "",
                    "lastTransitionTime": "0001-01-01T00:00:00Z",
                }
            ],
            "activeSeconds": 2**53 - 1,
            "startTime": "9999-12-31T23:59:59Z",
        },
    ],
)
async def test_a_status_edited_to_absurd_values_harms_nothing(status):
    rig = Rig()
    await rig.add(activeDeadlineSeconds=1000, stallTimeoutSeconds=60)
    rig.cluster.objects["optimizationjobs", *KEY]["status"] = status
    rig.restart()
    await rig.reconcile()
    assert rig.status["reason"] not in ("ReconcileFailed", "")
    assert len(rig.made("pods")) <= 1024
