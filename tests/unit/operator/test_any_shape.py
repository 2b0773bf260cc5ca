"""Any JSON in any field of a job, its pods and its ConfigMap ends in a status of that job."""

from __future__ import annotations

import asyncio
import copy
import logging

import jsonschema
import pytest
from controller_rig import KEY, Rig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operator_world import manifest

from shardwise.api.crd import definition
from shardwise_operator.watch import trimmed

EDGES = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        2**31,
        2**53,
        2**63,
        2**64,
        float("inf"),
        1.5,
        "",
        "x" * 5000,
        "\ud800",
        "\x00\x1b[31m",
        "2026-13-45T99:99:99Z",
        "9999-12-31T23:59:59Z",
        [],
        {},
        [None],
        {"name": None},
    ]
)
ANY = st.recursive(
    EDGES | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
JOB = manifest(
    template={
        "metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}},
        "spec": {
            "nodeSelector": {"a": "b"},
            "containers": [{"name": "trainer", "env": [{"name": "A", "value": "1"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    },
    output={"volume": {"persistentVolumeClaim": {"claimName": "x"}}},
    checkpoint={"everySteps": 5, "volume": {"emptyDir": {}}},
    restartPolicy={"maxRestarts": 1},
    activeDeadlineSeconds=1000,
    stallTimeoutSeconds=600,
)
POD_STATUS = {
    "phase": "Running",
    "startTime": "2026-01-01T00:00:00Z",
    "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ],
    "containerStatuses": [
        {"name": "trainer", "state": {"terminated": {"exitCode": 1, "message": "m"}}}
    ],
    "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "x"}}}],
}


@pytest.fixture(autouse=True, scope="module")
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def places(value, at=()):
    yield at
    if not isinstance(value, dict | list):
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(inner, (*at, key))


def put(value, at, new):
    changed = copy.deepcopy(value)
    if not at:
        return new
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = new
    return changed


VERSION = definition(cel=True)["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]


def accepts(status) -> None:
    jsonschema.validate(status, SCHEMA)


async def ends_in_a_status(rig: Rig) -> None:
    for _ in range(3):
        await rig.reconcile()
        rig.time += 30
    accepts(rig.status)
    if rig.status.get("state") not in ("Succeeded",):
        assert rig.status["reason"] != "ReconcileFailed", rig.status["message"]
        assert rig.status["conditions"]


FUZZ = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@FUZZ
@given(st.sampled_from(list(places(JOB["spec"]))), ANY)
def test_any_spec(at, value):
    async def run():
        rig = Rig()
        body = {**JOB, "spec": put(JOB["spec"], at, value)}
        rig.jobs.put(await rig.cluster.create("optimizationjobs", "default", body))
        await ends_in_a_status(rig)

    asyncio.run(run())


@FUZZ
@given(st.sampled_from(list(places(JOB["spec"]))), ANY)
def test_any_spec_of_a_job_that_has_begun(at, value):
    async def run():
        rig = Rig()
        rig.jobs.put(await rig.cluster.create("optimizationjobs", "default", JOB))
        await rig.reconcile()
        rig.cluster.objects["optimizationjobs", *KEY]["spec"] = put(JOB["spec"], at, value)
        rig.restart()
        await ends_in_a_status(rig)

    asyncio.run(run())


@FUZZ
@given(st.sampled_from(list(places(POD_STATUS))), ANY)
def test_any_pod(at, value):
    async def run():
        rig = Rig()
        rig.jobs.put(await rig.cluster.create("optimizationjobs", "default", JOB))
        await rig.reconcile()
        pods = [o for (k, *_), o in rig.cluster.objects.items() if k == "pods"]
        raw = {**pods[0], "status": put(POD_STATUS, at, value)}
        raw["metadata"] = {**raw["metadata"], "annotations": value}
        rig.cluster.objects["pods", "default", raw["metadata"]["name"]] = trimmed(raw)
        await ends_in_a_status(rig)

    asyncio.run(run())


@FUZZ
@given(st.dictionaries(st.sampled_from(["data", "binaryData", "metadata"]), ANY))
def test_any_config_map(body):
    async def run():
        rig = Rig()
        trainer = {**JOB["spec"]["trainer"], "codeFrom": {"configMap": "code"}}
        job = {**JOB, "spec": {**JOB["spec"], "trainer": trainer}}
        rig.jobs.put(await rig.cluster.create("optimizationjobs", "default", job))
        rig.cluster.objects["configmaps", "default", "code"] = body
        await ends_in_a_status(rig)

    asyncio.run(run())


@FUZZ
@given(ANY)
def test_any_status(value):
    async def run():
        rig = Rig()
        rig.jobs.put(await rig.cluster.create("optimizationjobs", "default", JOB))
        await rig.reconcile()
        status = rig.status
        for at in list(places(status))[1::9]:
            rig.cluster.objects["optimizationjobs", *KEY]["status"] = put(status, at, value)
            rig.restart()
            await rig.reconcile()
            assert rig.status["reason"] != "ReconcileFailed", (at, rig.status["message"])
            accepts(rig.status)

    asyncio.run(run())
