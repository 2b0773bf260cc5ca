"""Somebody else's objects: never believed and never deleted, whatever they carry."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from controller_rig import FACTS, Rig
from operator_world import SHA, manifest
from toy_cluster import ToyCluster

from shardwise.coordinator.protocol import MAX_LINE, Finished, Hello, decode, encode
from shardwise_operator import identity, names
from shardwise_operator.coordination import POD_NAME, POD_UID
from shardwise_operator.observe import foreign_pods, job_view, pod_views
from shardwise_operator.render import pod_manifest
from shardwise_operator.watch import trimmed

JOB = job_view(manifest())
RESULT = {"outcome": "succeeded", "result": {"steps": 1, "weightsSha256": SHA}}


def worker(index: int = 1, **meta: Any) -> dict[str, Any]:
    """A pod as the operator makes it, with parts of its metadata replaced."""
    made = pod_manifest(JOB, index, {}, FACTS)
    made["metadata"] |= {"uid": "pod-uid", **meta}
    return made


def reference(**changes: Any) -> list[dict[str, Any]]:
    return [{**worker()["metadata"]["ownerReferences"][0], **changes}]


def relabelled(**changes: str) -> dict[str, str]:
    short = {"name": names.JOB_NAME, "uid": names.JOB_UID, "index": names.INDEX}
    return {**worker()["metadata"]["labels"], **{short[key]: v for key, v in changes.items()}}


FOREIGN = {
    "labels alone": worker(ownerReferences=[]),
    "an owner that does not control": worker(ownerReferences=reference(controller=False)),
    "another job's": worker(ownerReferences=reference(uid="other")),
    "another kind's": worker(ownerReferences=reference(kind="StatefulSet")),
    "another group's kind": worker(ownerReferences=reference(apiVersion="trainer.kubeflow.org/v1")),
    "of another namespace": worker(namespace="evil"),
    "another name": worker(name="postgres-0"),
    "another index's name": worker(name="digits-2"),
    "a name with a nought": worker(name="digits-01", labels=relabelled(index="01")),
    "labels of another job": worker(labels=relabelled(uid="other")),
    "labels of another name": worker(labels=relabelled(name="other")),
    "no labels": worker(labels={}),
    "no uid": worker(uid=""),
}


def test_the_operators_own_pod_is_known_as_such_once_trimmed():
    for raw in (worker(), trimmed(worker())):
        assert [pod.index for pod in pod_views([raw], "job-uid", "default")] == [1]
        assert foreign_pods([raw], JOB) == ()


@pytest.mark.parametrize("raw", FOREIGN.values(), ids=FOREIGN)
def test_no_other_pod_is_the_jobs(raw):
    for seen in (raw, trimmed(raw)):
        assert pod_views([seen], "job-uid", "default") == ()


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("digits-0", 0),
        ("digits-12", 12),
        ("digits-012", None),
        ("digits-", None),
        ("other-1", None),
    ],
)
def test_a_name_has_one_index(name, index):
    assert identity.name_index(name, "digits") == index


def test_a_name_that_is_taken_is_known_by_the_name_and_not_by_the_labels():
    found = foreign_pods([worker(ownerReferences=[]), worker(5, name="x", ownerReferences=[])], JOB)
    assert [(pod.name, pod.index, pod.leaves) for pod in found] == [("digits-1", 1, False)]
    earlier = worker(ownerReferences=reference(uid="of-the-earlier-job"))
    assert [pod.leaves for pod in foreign_pods([earlier], JOB)] == [True]
    dying = worker(ownerReferences=[], deletionTimestamp="2026-01-01T00:00:00Z")
    assert [pod.leaves for pod in foreign_pods([dying], JOB)] == [True]


def succeeded(raw: dict[str, Any]) -> dict[str, Any]:
    ended = {"exitCode": 0, "message": json.dumps(RESULT), "finishedAt": "2026-01-01T00:00:00Z"}
    status = {
        "phase": "Succeeded",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}],
    }
    return {**copy.deepcopy(raw), "status": status}


@pytest.mark.parametrize("raw", FOREIGN.values(), ids=FOREIGN)
async def test_a_result_in_somebody_elses_pod_ends_no_job_and_no_such_pod_is_deleted(raw):
    rig = Rig()
    await rig.add(workers={"replicas": 1})
    await rig.reconcile()
    body = succeeded(raw)
    if body["metadata"]["uid"]:  # The server gives one to each.
        body["metadata"]["uid"] = "foreign-uid"
    await rig.cluster.create("pods", body["metadata"]["namespace"], body)
    for second in range(1, 200, 20):
        rig.time = second
        await rig.reconcile()
    assert rig.status["state"] in ("Pending", "Starting", "Waiting")
    assert not [call for call in rig.cluster.calls if call[0] == "delete"]


@pytest.mark.parametrize("labels", [{}, {"shardwise.dev/job-name": "digits"}], ids=["bare", "ours"])
async def test_a_pod_of_somebody_else_keeps_its_name_and_another_one_is_taken(labels):
    rig = Rig()
    await rig.add()
    body = {"metadata": {"name": "digits-1", "namespace": "default", "labels": labels}}
    await rig.cluster.create("pods", "default", body)
    rig.cluster.objects["pods", "default", "digits-1"]["metadata"]["labels"].setdefault(
        "shardwise.dev/job-name", "other"
    )
    for second in range(4):
        rig.time = second
        await rig.reconcile()
    assert rig.made("pods") == [f"digits-{n}" for n in range(5)]
    assert rig.status["workers"]["names"] == ["digits-0", "digits-2", "digits-3", "digits-4"]
    assert rig.status["reason"] == "NameTaken"
    said = "pod digits-1 exists and is not this job's: delete or rename it"
    assert said in rig.status["message"]
    assert "NameTaken" in rig.events
    assert not [call for call in rig.cluster.calls if call[0] == "delete"]
    rig.progress(1)
    await rig.reconcile()
    assert rig.status["state"] == "Running"


async def test_what_an_earlier_job_of_the_name_left_goes_by_itself():
    rig = Rig()
    await rig.add(workers={"replicas": 1})
    earlier = worker(0, ownerReferences=reference(uid="earlier"))
    earlier["metadata"]["labels"]["shardwise.dev/job-name"] = "stripped"
    await rig.cluster.create("pods", "default", earlier)
    assert await rig.reconcile() == 1.0
    assert "earlier job" in rig.status["message"]
    await rig.reconcile()
    assert rig.made("pods") == ["digits-0", "digits-1"]


async def test_a_pod_of_ours_whose_labels_are_gone_is_told_of():
    rig = Rig()
    await rig.add(workers={"replicas": 1})
    await rig.cluster.create("pods", "default", worker(0, labels={names.JOB_NAME: "x"}))
    await rig.reconcile()
    assert rig.status["reason"] == "NameTaken"
    await rig.reconcile()
    assert rig.made("pods") == ["digits-0", "digits-1"]


async def test_a_service_of_somebody_else_stays_and_the_job_runs_without():
    rig = Rig()
    await rig.add()
    mine = {"metadata": {"name": "digits", "labels": {names.JOB_UID: "job-uid"}}}
    await rig.cluster.create("services", "default", mine)
    await rig.reconcile()
    assert len(rig.made("pods")) == 4
    said = "service digits exists and is not this job's: delete or rename it"
    assert (rig.status["reason"], said in rig.status["message"]) == ("NameTaken", True)
    rig.time = 61
    await rig.reconcile()
    assert rig.status["reason"] == "WaitingForWorkers"


class Cross(ToyCluster):
    """A pod of namespace `evil`, with a token that the API server vouches for."""

    evil: dict[str, Any] = worker(namespace="evil", uid="evil-uid")

    def pod(self, namespace: str, name: str) -> Any:
        return trimmed(self.evil) if namespace == "evil" else super().pod(namespace, name)


@pytest.mark.parametrize("references", [[], reference()], ids=["labels", "reference"])
async def test_a_worker_of_another_namespace_is_turned_away(references):
    toy = Cross()
    toy.evil["metadata"]["ownerReferences"] = references
    review = toy.cluster.review_token

    async def reviewed(token: str, audience: str) -> dict[str, Any]:
        if token != "evil":
            return await review(token, audience)
        extra = {POD_NAME: ["digits-1"], POD_UID: ["evil-uid"]}
        user = {"username": "system:serviceaccount:evil:default", "extra": extra}
        return {"authenticated": True, "audiences": [audience], "user": user}

    toy.cluster.review_token = reviewed  # type: ignore[method-assign]
    await toy.start(workers={"replicas": 2, "min": 1})
    try:
        await toy.until(lambda: (toy.status.get("workers") or {}).get("members") == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", toy.port, limit=MAX_LINE)
        fingerprint = {"torch": "1"}
        writer.write(
            encode(Hello(token="evil", worker="digits-1", index=1, fingerprint=fingerprint))
        )
        async with asyncio.timeout(10):
            answer = decode(await reader.readline())
        assert type(answer).__name__ == "Refusal"
        writer.write(encode(Finished(result={"steps": 1, "weightsSha256": SHA})))
        writer.close()
        await toy.until(lambda: (toy.status.get("progress") or {}).get("step", 0) >= 1)
        assert toy.status["state"] == "Running"
        assert toy.status["workers"]["members"] == 2
    finally:
        await toy.stop()
