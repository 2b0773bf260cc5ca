"""Mistakes a user makes: each is refused at once, or told of with the field and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jobs import Job, condition, job, wait_ended, wait_job
from kubectl import Kubectl


def changed(base: Job, *path: str, to: Any) -> Job:
    level = base
    for name in path[:-1]:
        level = level.setdefault(name, {})
    level[path[-1]] = to
    return base


LARGE = {"containers": [{"name": "trainer", "resources": {"requests": {"memory": "900Gi"}}}]}
# What `kubectl apply` answers to, on every server.
REFUSED = {
    "wrong type": (job("wrong-type", shards="eight"), "shards"),
    "zero shards": (job("zero-shards", shards=0), "shards"),
    "entrypoint without a function": (job("bad-entrypoint", entrypoint="digits"), "entrypoint"),
    "negative time": (
        changed(job("negative"), "spec", "startupDeadlineSeconds", to=-1),
        "startupDeadlineSeconds",
    ),
    "fraction without quotes": (job("fraction", parameters={"learning_rate": 0.1}), "parameters"),
    "no batch size": (job("no-batch", batchSize=None), "batchSize"),
    "unknown partition": (job("cut", partition="rows"), "partition"),
    "unknown field": (job("unknown-field", epoch=3), "epoch"),
}
CEL_SINCE = (1, 25)
# What `kubectl apply` answers to on a server with CEL, and the operator where there is none: the
# job's name, then the reason, the field that the message names, and a word of the remedy.
TOLD = {
    "more workers than shards": (
        job("too-many", workers=9),
        "InvalidSpec",
        "spec.workers.replicas",
        "raise shards",
    ),
    "min over replicas": (
        changed(job("min-over"), "spec", "workers", "min", to=3),
        "InvalidSpec",
        "spec.workers.min",
        "lower min",
    ),
    "replicas over max": (
        changed(job("over-max", workers=3), "spec", "workers", "max", to=2),
        "InvalidSpec",
        "spec.workers.replicas",
        "raise max",
    ),
    "epochs and steps": (job("both", steps=5), "InvalidSpec", "spec.trainer.epochs", "remove"),
    "name too long": (job("n" * 53), "NameTooLong", "metadata.name", "shorter"),
}
# What no schema can know.
FOUND = {
    "missing ConfigMap": (
        job("no-code", entrypoint="train:task", codeFrom={"configMap": "absent"}),
        ("ConfigMapMissing", "ContainerConfigError"),
        ("absent",),
    ),
    "image that cannot be pulled": (
        job("no-image", image="registry.invalid/none:1"),
        ("ImagePullFailed",),
        ("spec.trainer.image",),
    ),
    "more memory than any node has": (
        changed(job("large"), "spec", "template", to={"spec": LARGE}),
        ("Unschedulable",),
        ("spec.template",),
    ),
    "module that is not there": (
        job("no-module", entrypoint="nowhere.to.be.found:task"),
        ("UserCodeFailed",),
        ("nowhere",),
    ),
}


@pytest.fixture(scope="module")
def applied(release: Kubectl) -> Iterator[tuple[Kubectl, dict[str, str]]]:
    """All jobs that are told of later, applied together; with what an API server refused."""
    release.run("create", "namespace", "mistakes")
    kubectl = release.within("mistakes")
    refusals = {}
    for name, (manifest, *_) in {**TOLD, **FOUND}.items():
        done = kubectl.apply(manifest, check=False)
        if done.returncode:
            refusals[name] = done.stderr
    yield kubectl, refusals
    kubectl.run("delete", "namespace", "mistakes", "--wait=false")


@pytest.mark.parametrize("mistake", REFUSED)
def test_is_refused_at_once(applied, mistake: str) -> None:
    kubectl, _ = applied
    manifest, field = REFUSED[mistake]
    done = kubectl.apply(manifest, check=False)
    assert done.returncode != 0
    assert field in done.stderr


@pytest.mark.parametrize("mistake", TOLD)
def test_is_refused_or_told_of_with_the_remedy(applied, mistake: str) -> None:
    kubectl, refusals = applied
    manifest, reason, field, remedy = TOLD[mistake]
    assert (mistake in refusals) is (kubectl.version() >= CEL_SINCE)
    if mistake in refusals:
        assert field in refusals[mistake] and remedy in refusals[mistake]
        return
    name = manifest["metadata"]["name"]
    found = wait_job(
        kubectl,
        name,
        "the job is not accepted",
        lambda seen: condition(seen, "Accepted").get("status") == "False",
    )
    accepted = condition(found, "Accepted")
    assert accepted["reason"] == reason
    assert field in accepted["message"] and remedy in accepted["message"]
    assert accepted["observedGeneration"] == found["metadata"]["generation"]
    assert not kubectl.pods(name)


@pytest.mark.parametrize("mistake", FOUND)
def test_is_told_of_when_it_shows(applied, mistake: str) -> None:
    kubectl, _ = applied
    manifest, reasons, words = FOUND[mistake]
    found = wait_job(
        kubectl,
        manifest["metadata"]["name"],
        f"the reason is one of {reasons}",
        lambda seen: seen.get("status", {}).get("reason") in reasons,
    )
    for word in words:
        assert word in found["status"]["message"], found["status"]


def test_no_mistake_restarts_the_operator(applied, release: Kubectl) -> None:
    (pod,) = release.list("pods", "app.kubernetes.io/component=operator")
    assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]


def test_an_error_in_the_users_code_ends_in_status(namespace: Kubectl) -> None:
    code = 'def task():\n    raise ValueError("the table of prices is empty")\n'
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "my-code"},
            "data": {"prices.py": code},
        }
    )
    namespace.apply(job("prices", entrypoint="prices:task", codeFrom={"configMap": "my-code"}))
    found = wait_ended(namespace, "prices")
    assert found["status"]["state"] == "Failed"
    assert found["status"]["reason"] == "UserCodeFailed"
    failure = found["status"]["lastFailure"]
    assert failure["exitCode"] == 70
    last = "ValueError: the table of prices is empty"
    assert last in found["status"]["message"] + failure["message"]
    assert last in failure["logTail"]
    assert condition(found, "Failed")["status"] == "True"
