"""Who may speak to the coordinator: a token's pod, alive, and labelled as a job's worker."""

from __future__ import annotations

import pytest
from fake_cluster import FakeCluster
from operator_world import manifest

from shardwise.coordinator import Hello, Identity, Refused
from shardwise_operator import names
from shardwise_operator.actions import OpenTask
from shardwise_operator.coordination import POD_NAME, POD_UID, Coordination
from shardwise_operator.observe import job_view
from shardwise_operator.port import ApiError

HELLO = Hello(token="secret", worker="digits-1", index=1, fingerprint={})


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


def pod(uid="uid-1", **changes):
    labels = {names.JOB_UID: "job-uid", names.INDEX: "1"}
    return {"metadata": {"uid": uid, "labels": labels, **changes}}


class Pods:
    def __init__(self, found):
        self.found = found

    def pod(self, namespace, name):
        return self.found if (namespace, name) == ("ns", "digits-1") else None


def coordination(answer, found, changed=None):
    cluster = FakeCluster()
    cluster.review = answer
    return cluster, Coordination(
        cluster,
        Pods(found),
        changed.append if changed is not None else lambda key: None,
        grace_seconds=1,
        report_seconds=1,
    )


async def test_a_living_worker_is_who_its_pod_says():
    cluster, subject = coordination(review(), pod())
    identity = Identity(task="job-uid", worker="digits-1", index=1)
    assert await subject.authenticate(HELLO) == identity
    assert cluster.calls == [("review", "tokenreviews", "shardwise-coordinator")]


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
        (review(), pod(deletionTimestamp="2026-01-01T00:00:00Z")),
        (review(), pod(labels={})),
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


async def test_tasks_are_jobs():
    _, subject = coordination(review(), pod())
    job = job_view(manifest())
    subject.open(job, OpenTask(workers=4, trainer={"entrypoint": "a:b"}, generation_floor=2))
    report = subject.report("job-uid")
    assert report is not None
    assert (report.workers, report.generation) == (4, 2)
    subject.close(job, "Completed", "done")
    assert subject.report("job-uid") is None
