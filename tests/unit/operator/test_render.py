"""Manifests: admissible in a restricted namespace, owned by the job, open to the template."""

from __future__ import annotations

import json

import pytest
from operator_world import manifest

from shardwise.api import environment as env
from shardwise_operator import names
from shardwise_operator.observe import job_view, pod_view
from shardwise_operator.render import (
    RenderFacts,
    merged_pod_spec,
    pod_manifest,
    service_manifest,
)

FACTS = RenderFacts(
    image="trainer:1",
    pull_policy="IfNotPresent",
    coordinator_address="c.ns.svc:7070",
    coordinator_name="c.ns.svc",
    certificate="PEM",
)


def rendered(index=2, trainer=None, **spec):
    job = job_view(manifest(**spec))
    return pod_manifest(job, index, trainer or {"entrypoint": "a.b:task"}, FACTS)


def container(pod):
    return pod["spec"]["containers"][0]


def environment(pod):
    return {entry["name"]: entry.get("value") for entry in container(pod)["env"]}


def test_a_pod_meets_the_restricted_standard():
    pod = rendered()
    spec, only = pod["spec"], container(pod)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert {next(k for k in volume if k != "name") for volume in spec["volumes"]} <= {
        "configMap",
        "emptyDir",
        "projected",
        "persistentVolumeClaim",
    }


def test_a_pod_is_named_labelled_and_owned():
    pod = rendered()
    meta = pod["metadata"]
    assert (meta["name"], meta["namespace"]) == ("digits-2", "default")
    assert meta["labels"][names.JOB_UID] == "job-uid"
    assert meta["labels"][names.INDEX] == "2"
    owner = meta["ownerReferences"][0]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        "job-uid",
        True,
        False,
    )
    spec = pod["spec"]
    assert (spec["hostname"], spec["subdomain"], spec["restartPolicy"]) == (
        "digits-2",
        "digits",
        "Never",
    )
    view = pod_view(pod)
    assert view is not None
    assert (view.index, view.trainer) == (2, {"entrypoint": "a.b:task"})


def test_the_environment_says_where_to_go_and_not_what_to_train():
    values = environment(rendered())
    assert values[env.COORDINATOR] == "c.ns.svc:7070"
    assert values[env.COORDINATOR_CA] == "PEM"
    assert values[env.INDEX] == "2"
    assert values[env.WORKER] == "digits-2"
    assert values[env.TOKEN_FILE] == "/var/run/secrets/shardwise/token"
    assert "entrypoint" not in json.dumps(container(rendered()))


def test_code_comes_from_the_configmap_of_the_accepted_trainer():
    pod = rendered(trainer={"codeFrom": {"configMap": "code"}, "image": "mine:2"})
    assert {"name": "code", "configMap": {"name": "code"}} in pod["spec"]["volumes"]
    assert environment(pod)["PYTHONPATH"] == "/code"
    assert container(pod)["image"] == "mine:2"
    assert "PYTHONPATH" not in environment(rendered())


def test_the_accepted_compression_stands_in_the_annotation_alone():
    compression = {"steps": [{"name": "int8", "quantize": {}}]}
    pod = rendered(trainer={"compression": compression})
    assert pod["spec"] == rendered()["spec"]
    accepted = json.loads(pod["metadata"]["annotations"][names.ACCEPTED_TRAINER])
    assert accepted["compression"] == compression


def test_the_template_is_laid_over_but_what_we_rest_on_stays():
    pod = rendered(
        template={
            "metadata": {"labels": {"team": "a", names.JOB_UID: "forged"}},
            "spec": {
                "restartPolicy": "Always",
                "nodeSelector": {"gpu": "yes"},
                "tolerations": [{"key": "x"}],
                "containers": [
                    {"name": "trainer", "resources": {"limits": {"memory": "1Gi"}}},
                    {"name": "sidecar", "image": "s"},
                ],
            },
        }
    )
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"][names.JOB_UID] == "job-uid"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert [c["name"] for c in pod["spec"]["containers"]] == ["trainer", "sidecar"]
    assert container(pod)["resources"] == {
        "requests": {"cpu": "100m", "memory": "512Mi"},
        "limits": {"memory": "1Gi"},
    }
    assert container(pod)["command"] == ["python", "-m", "shardwise.worker"]


def test_the_output_volume_is_the_jobs():
    claim = {"persistentVolumeClaim": {"claimName": "results"}}
    assert {"name": "output", **claim} in rendered(output={"volume": claim})["spec"]["volumes"]
    assert {"name": "output", "emptyDir": {}} in rendered()["spec"]["volumes"]


def test_checkpoints_go_to_a_volume_or_a_url_under_the_jobs_name():
    claim = {"persistentVolumeClaim": {"claimName": "kept"}}
    pod = rendered(checkpoint={"everySteps": 5, "volume": claim})
    assert {"name": "checkpoint", **claim} in pod["spec"]["volumes"]
    assert {"name": "checkpoint", "mountPath": "/checkpoint"} in container(pod)["volumeMounts"]
    assert environment(pod)[env.CHECKPOINT] == "/checkpoint/digits"
    pod = rendered(checkpoint={"everySteps": 5, "url": "s3://bucket/jobs/"})
    assert environment(pod)[env.CHECKPOINT] == "s3://bucket/jobs/default/digits"
    assert "checkpoint" not in {volume["name"] for volume in pod["spec"]["volumes"]}
    assert env.CHECKPOINT not in environment(rendered())


@pytest.mark.parametrize(("given", "pods", "workers"), [(None, 30, "27"), (120, 120, "117")])
def test_a_worker_knows_how_long_it_may_take_to_leave(given, pods, workers):
    spec = {"terminationGracePeriodSeconds": given} if given else {}
    pod = rendered(template={"spec": spec})
    assert pod["spec"]["terminationGracePeriodSeconds"] == pods
    assert environment(pod)[env.GRACE_SECONDS] == workers


@pytest.mark.parametrize(
    ("ours", "theirs", "result"),
    [
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"list": [1, 2]}, {"list": [3]}, {"list": [3]}),
        (
            {"env": [{"name": "A", "value": "1"}]},
            {"env": [{"name": "A", "valueFrom": {}}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "A", "valueFrom": {}}, {"name": "B", "value": "2"}]},
        ),
        (
            {"volumes": [{"name": "output", "emptyDir": {}}]},
            {"volumes": [{"name": "data", "emptyDir": {}}]},
            {"volumes": [{"name": "output", "emptyDir": {}}, {"name": "data", "emptyDir": {}}]},
        ),
    ],
)
def test_merging(ours, theirs, result):
    before = json.dumps(ours)
    assert merged_pod_spec(ours, theirs) == result
    assert json.dumps(ours) == before


def test_the_service_is_headless_and_knows_unready_workers():
    service = service_manifest(job_view(manifest()))
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {names.JOB_UID: "job-uid"}


def test_a_worker_of_a_pool_is_told_so():
    tasks = {"list": [{"name": "one"}]}
    trainer = {"entrypoint": "a.b:task", "tasks": tasks}
    pool = rendered(trainer=trainer)
    assert environment(pool)[env.POOL] == "1"
    assert env.POOL not in environment(rendered())
    annotation = pool["metadata"]["annotations"][names.ACCEPTED_TRAINER]
    assert json.loads(annotation)["tasks"] == tasks
    assert pod_view(pool).trainer == trainer
