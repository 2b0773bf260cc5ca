"""Containers beside the trainer: they neither hold a job up, nor hide how it ended."""

from __future__ import annotations

import json
from typing import Any

import pytest
from controller_rig import Rig
from operator_world import SHA, World

from shardwise_operator.decide.failures import pod_failure
from shardwise_operator.observe import PodView, pod_view
from shardwise_operator.watch import trimmed

RESULT = {"outcome": "succeeded", "result": {"steps": 1, "weightsSha256": SHA}}


def ended(name: str, code: int, reason: str = "", message: str = "") -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason, "message": message, "startedAt": "x"}
    return {"name": name, "state": {"terminated": state}}


def running(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": {"running": {}}, **more}


def status(phase: str, *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": list(containers), **more}


def view(found: dict[str, Any], spec: Any = None) -> PodView:
    meta = {"name": "digits-0", "uid": "u", "labels": {"shardwise.dev/index": "0"}}
    seen = pod_view(trimmed({"metadata": meta, "spec": spec or {}, "status": found}))
    assert seen is not None
    return seen


DONE = ended("trainer", 0, "Completed", json.dumps(RESULT))
BESIDE = {
    "it runs on": ("Running", running("proxy")),
    "it failed": ("Failed", ended("proxy", 137, "OOMKilled")),
    "it ended well": ("Succeeded", ended("proxy", 0)),
    "it crashes": (
        "Running",
        {"name": "proxy", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
    ),
}


@pytest.mark.parametrize(("phase", "beside"), BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("first", [True, False])
async def test_a_trainer_that_has_ended_ends_the_job_and_the_pod(phase, beside, first):
    rig = Rig()
    await rig.add(workers={"replicas": 1})
    await rig.reconcile()
    rig.progress(1)
    await rig.reconcile()
    found = status(phase, *((DONE, beside) if first else (beside, DONE)))
    rig.cluster.objects["pods", "default", "digits-0"]["status"] = found
    await rig.reconcile()
    assert rig.status["state"] == "Succeeded"
    assert rig.status["result"]["weightsSha256"] == SHA
    assert "restarts" not in rig.status
    rig.time += 11
    await rig.reconcile()
    gone = phase == "Running"  # One whose containers have all ended costs nothing, and has logs.
    assert rig.made("pods") == ([] if gone else ["digits-0"])


@pytest.mark.parametrize(("policy", "kept"), [("None", 1), ("Running", 0), ("All", 0)])
async def test_the_policy_for_pods_decides_about_one_that_a_sidecar_keeps_running(policy, kept):
    rig = Rig()
    await rig.add(workers={"replicas": 1}, cleanPodPolicy=policy)
    await rig.reconcile()
    rig.progress(1)
    found = status("Running", DONE, running("proxy"))
    rig.cluster.objects["pods", "default", "digits-0"]["status"] = found
    for rig.time in (1.0, 20.0):
        await rig.reconcile()
    assert (rig.status["state"], len(rig.made("pods"))) == ("Succeeded", kept)


@pytest.mark.parametrize("phase", ["Running", "Failed"])
def test_the_trainers_own_failure_is_told_with_what_ended_beside_it(phase):
    pod = view(status(phase, ended("proxy", 137, "OOMKilled"), ended("trainer", 71, "Error")))
    failure = pod_failure(pod)
    assert (failure.kind, failure.reason) == ("counted", "WorkerLost")
    assert "beside it ended proxy (OOMKilled, exit code 137)" in failure.message


@pytest.mark.parametrize(("code", "reason"), [(70, "Error"), (73, "Error"), (137, "OOMKilled")])
def test_an_init_containers_exit_is_not_the_workers(code, reason):
    """Code 70 of a worker would end the job at once, and its words would be a worker's."""
    said = json.dumps({"outcome": "failed", "reason": "UserCodeFailed", "message": "m"})
    inits = [ended("fetch", code, reason, said)]
    pod = view(status("Failed", initContainerStatuses=inits))
    failure = pod_failure(pod)
    assert (failure.kind, failure.reason) == ("counted", "InitContainerFailed")
    assert "init container fetch failed" in failure.message
    assert "kubectl logs digits-0 -c fetch" in failure.message


def pending(*inits: dict[str, Any], **more: Any) -> dict[str, Any]:
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "PodInitializing"}}}
    return status("Pending", waiting, initContainerStatuses=list(inits), startTime="x", **more)


BACKOFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}
NATIVE = {"nodeName": "n", "initContainers": [{"name": "side", "restartPolicy": "Always"}]}
GATED = {"schedulingGates": [{"name": "example.com/quota"}]}
SECRET = 'FailedMount: MountVolume.SetUp failed for volume "d" : secret "absent" not found'
CASES: dict[str, tuple[Any, Any, str, str, list[str]]] = {
    "a native sidecar crashes": (
        pending({"name": "side", "state": BACKOFF}), NATIVE, "", "SidecarFailed",
        ["side", "kubectl logs digits-0 -c side"],
    ),
    "a native sidecar's probe fails": (
        pending(running("side", started=False)), NATIVE, "", "StartupSlow", ["side", "probe"],
    ),
    "an init container never ends": (
        pending(running("wait")), {"nodeName": "n", "initContainers": [{"name": "wait"}]}, "",
        "StartupSlow", ["init container wait", "kubectl logs digits-0 -c wait"],
    ),
    "a Secret is missing": (
        pending(), {"nodeName": "n"}, SECRET, "ContainerConfigError", ["absent", "create it"],
    ),
    "a volume is attached elsewhere": (
        pending(), {"nodeName": "n"},
        "FailedAttachVolume: Multi-Attach error for volume x Volume is already exclusively "
        "attached to one node", "ContainerConfigError", ["ReadWriteMany"],
    ),
    "nothing is known": (pending(), {"nodeName": "n"}, "", "StartupSlow", ["kubectl describe"]),
    "a scheduling gate": (
        {"phase": "Pending"}, GATED, "", "SchedulingGated", ["example.com/quota", "remove"],
    ),
    "a crashed sidecar beside a trainer that waits": (
        status("Running", running("trainer"), ended("proxy", 137, "OOMKilled")), {"nodeName": "n"},
        "", "SidecarFailed", ["proxy (OOMKilled, exit code 137)", "restartPolicy Never"],
    ),
    "a claim that is not there": (
        {"phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": '0/2 nodes are available: persistentvolumeclaim "data" not found.'}]},
        {}, "", "Unschedulable", ["data", "create the claim"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "spec", "event", "reason", "words"), CASES.values(), ids=CASES)
async def test_why_a_pod_does_not_start_is_told_with_what_to_do(found, spec, event, reason, words):
    rig = Rig()
    await rig.add(workers={"replicas": 1})
    await rig.reconcile()
    pod = rig.cluster.objects["pods", "default", "digits-0"]
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    pod["spec"].pop("initContainers", None)
    pod["spec"] |= spec
    pod["status"] = found
    if event:
        why, _, message = event.partition(": ")
        for time, text in (("2026-01-01T00:00:01Z", "older"), ("2026-01-01T00:00:09Z", message)):
            body = {
                "metadata": {"name": f"e{time}"},
                "type": "Warning",
                "reason": why,
                "message": text,
                "lastTimestamp": time,
            }
            await rig.cluster.create("events", "default", body)
    rig.time = 61.0
    after = await rig.reconcile()
    assert (rig.status["state"], rig.status["reason"]) == ("Waiting", reason)
    for word in words:
        assert word in rig.status["message"]
    if reason == "StartupSlow" or event:
        assert after is not None
        asked = ("list", "events", f"involvedObject.uid={pod['metadata']['uid']}")
        assert rig.cluster.calls.count(asked) == 1
        await rig.reconcile()
        assert rig.cluster.calls.count(asked) == 1
        rig.time += 30.0
        await rig.reconcile()
        assert rig.cluster.calls.count(asked) == 2


async def test_without_the_right_to_read_events_the_job_goes_on(monkeypatch):
    from shardwise_operator.port import ApiError

    rig = Rig()
    await rig.add(workers={"replicas": 1})
    await rig.reconcile()
    pod = rig.cluster.objects["pods", "default", "digits-0"]
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    pod["spec"]["nodeName"], pod["status"] = "n", pending()
    rig.cluster.refuse["list", "events"] = ApiError(403, "Forbidden", "no")
    rig.time = 61.0
    await rig.reconcile()
    assert rig.status["reason"] == "StartupSlow"


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('pods "x" is forbidden: error looking up service account default/x: '
         'serviceaccount "x" not found', "kubectl create serviceaccount"),
        ('pods "x" is forbidden: no PriorityClass with name high was found', "priorityclass"),
        ('pods "x" is forbidden: pod rejected: RuntimeClass "kata" not found', "runtimeClassName"),
        ('pods "x" is forbidden: maximum memory usage per Container is 256Mi, but limit is 1Gi',
         "LimitRange"),
        ("pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied "
         "request: no", "this policy"),
        ('admission webhook "v.example.com" denied the request: no', "this webhook"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": x', "spec.template"),
    ],
)  # fmt: skip
async def test_a_refusal_to_create_names_its_remedy(said, remedy):
    from shardwise_operator.port import ApiError

    rig = Rig()
    await rig.add(workers={"replicas": 1})
    rig.cluster.refuse["create", "pods"] = ApiError(403, "Forbidden", said)
    await rig.reconcile()
    assert said in rig.status["message"]
    assert remedy in rig.status["message"]


def test_an_end_counts_whatever_else_its_condition_lacks():
    world = World()
    world.raw["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    assert world.step().status is None
