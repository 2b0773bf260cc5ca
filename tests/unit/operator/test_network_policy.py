"""A job's NetworkPolicy is made before its pods, and no pod is made without it."""

from __future__ import annotations

from dataclasses import replace

import controller_rig
import pytest
from controller_rig import Rig

from shardwise_operator.port import ApiError
from shardwise_operator.settings import Settings, SettingsError

POLICY = "shardwise-job-uid"


@pytest.fixture
def rig(monkeypatch) -> Rig:
    monkeypatch.setattr(controller_rig, "FACTS", replace(controller_rig.FACTS, metrics_from=()))
    return Rig()


async def test_it_is_there_before_the_first_pod(rig):
    await rig.add()
    await rig.reconcile()
    made = [kind for verb, kind, _ in rig.cluster.calls if verb == "create"]
    assert made.index("networkpolicies") < made.index("pods")
    assert rig.made("networkpolicies") == ["shardwise-job-uid"]


async def test_one_that_is_there_is_left_as_it_is(rig):
    await rig.add()
    await rig.reconcile()
    rig.restart()
    uid = rig.cluster.objects["pods", "default", "digits-1"]["metadata"]["uid"]
    await rig.cluster.delete("pods", "default", "digits-1", uid)
    await rig.reconcile()
    assert rig.made("pods") == [f"digits-{n}" for n in range(4)]


async def test_no_pod_runs_without_it_and_the_status_says_why(rig):
    refused = ApiError(403, "Forbidden", "networkpolicies is forbidden")
    rig.cluster.refuse["create", "networkpolicies"] = refused
    await rig.add()
    await rig.reconcile()
    assert rig.made("pods") == []
    told = " ".join(found["message"] for found in rig.status["conditions"])
    assert "networkpolicy shardwise-job-uid could not be created" in told
    rig.cluster.refuse.clear()
    rig.time += 11
    await rig.reconcile()
    assert rig.made("networkpolicies") == ["shardwise-job-uid"]
    assert len(rig.made("pods")) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("NETWORK_POLICIES", "perhaps"), ("METRICS_FROM", "{}"), ("METRICS_FROM", "[1]")],
)
def test_a_setting_that_cannot_be_used_is_named(name, value):
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({f"SHARDWISE_{name}": value})


async def test_one_of_somebody_else_under_its_name_is_no_protection(rig):
    await rig.add()
    await rig.cluster.create("networkpolicies", "default", {"metadata": {"name": POLICY}})
    await rig.reconcile()
    assert rig.made("pods") == []
    assert rig.status["reason"] == "NameTaken"
    assert f"networkpolicy {POLICY} exists and is not this job's" in rig.status["message"]
    del rig.cluster.objects["networkpolicies", "default", POLICY]
    rig.time += 61
    await rig.reconcile()
    assert len(rig.made("pods")) == 4
