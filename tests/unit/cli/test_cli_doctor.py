"""`doctor`: a line for each thing that is wrong, with its remedy, and the exit code."""

from __future__ import annotations

import copy
import json

import pytest
from cli_api import JOBS
from samples import job

import shardwise
from shardwise.api.crd import definition
from shardwise.cli.checks import missing_fields

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/optimizationjobs.shardwise.dev"
PROMETHEUS = "/apis/monitoring.coreos.com/v1"
IMAGE = "registry.example.com/shardwise-trainer:1"


def deployment(ready=1, replicas=1, version=shardwise.__version__, image=IMAGE, namespaces=""):
    variables = [
        {"name": "SHARDWISE_TRAINER_IMAGE", "value": image},
        {"name": "SHARDWISE_NAMESPACES", "value": namespaces},
    ]
    return {
        "metadata": {
            "name": "shardwise",
            "namespace": "shardwise-system",
            "labels": {
                "app.kubernetes.io/name": "shardwise",
                "app.kubernetes.io/component": "operator",
                "app.kubernetes.io/version": version,
            },
        },
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": "operator", "env": variables}]}},
        },
        "status": {"readyReplicas": ready},
    }


def node(*names):
    return {"metadata": {"name": "node-a"}, "status": {"images": [{"names": list(names)}]}}


@pytest.fixture
def healthy(api):
    api.put("deployments", deployment())
    api.put("nodes", node(IMAGE))
    kinds = [{"kind": kind} for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")]
    api.say(PROMETHEUS, {"resources": kinds})
    api.put(JOBS, job())
    return api


def checks(call):
    """The checks by name, and the exit code."""
    done = call("doctor", "-o", "json")
    return {check["name"]: check for check in json.loads(done.stdout)}, done.exit_code


def test_all_is_well(healthy, call):
    done = call("doctor")
    assert done.exit_code == 0, done.stdout
    assert done.stdout.endswith("8 ok, 0 warnings, 0 failures\n") or "torch" in done.stdout
    assert "✓ cluster      Kubernetes v1.30.1 at http://127.0.0.1" in done.stdout
    found, _ = checks(call)
    assert {name: check["level"] for name, check in found.items()} == dict.fromkeys(
        ["client", "cluster", "crd", "rights", "operator", "images", "prometheus", "jobs"], "ok"
    )
    assert found["images"]["message"] == f"{IMAGE} is on 1 of 1 node"


def test_no_crd(healthy, call):
    healthy.refuse(CRD, 404, "NotFound", "not found")
    found, code = checks(call)
    assert code == 1
    assert found["crd"]["level"] == "fail"
    assert found["crd"]["remedy"].startswith("helm upgrade --install")


def test_a_crd_of_another_version(healthy, call):
    old = copy.deepcopy(definition(cel=True))
    spec = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["checkpoint"]
    healthy.say(CRD, old)
    found, code = checks(call)
    assert code == 0
    assert found["crd"]["level"] == "warn"
    assert "does not know spec.checkpoint" in found["crd"]["message"]


def test_a_crd_that_may_not_be_read(healthy, call):
    healthy.refuse(CRD, 403, "Forbidden", "no")
    healthy.say("/apis/shardwise.dev/v1alpha1", {"resources": []})
    assert "its fields are unknown" in checks(call)[0]["crd"]["message"]
    healthy.refuse("/apis/shardwise.dev/v1alpha1", 404, "NotFound", "no")
    assert checks(call)[0]["crd"]["level"] == "fail"


def test_the_schema_of_this_version_lacks_nothing():
    schema = definition(cel=False)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert missing_fields(schema) == []
    assert missing_fields({}) == ["apiVersion", "kind", "metadata", "spec", "status"]


def test_rights_that_are_missing(healthy, call):
    healthy.denied = {("get", "pods/log"), ("patch", "optimizationjobs/scale")}
    found, code = checks(call)
    assert code == 0
    assert "get pods/log (for logs)" in found["rights"]["message"]
    assert "patch optimizationjobs/scale (for scale)" in found["rights"]["message"]
    healthy.denied = {("get", JOBS)}
    found, code = checks(call)
    assert (found["rights"]["level"], code) == ("fail", 1)
    assert "kubectl create rolebinding" in found["rights"]["remedy"]


@pytest.mark.parametrize(
    ("made", "name", "level", "words"),
    [
        (deployment(ready=0), "operator", "fail", "has no ready replica of 1"),
        (deployment(replicas=2), "operator", "warn", "1 of 2 ready"),
        (
            deployment(namespaces="team,other"),
            "operator",
            "fail",
            "watches team,other, not default",
        ),
        (deployment(version="0.0.9"), "versions", "warn", "the operator 0.0.9"),
        (deployment(image="shardwise-trainer:1"), "images", "warn", "names no registry"),
        (deployment(image="localhost:5000/t:1"), "images", "ok", "pulled from localhost:5000"),
    ],
)
def test_the_operator_and_its_images(healthy, call, made, name, level, words):
    healthy.put("deployments", made)
    found, code = checks(call)
    assert found[name]["level"] == level
    assert words in found[name]["message"]
    assert code == (1 if level == "fail" else 0)


def test_an_image_that_was_loaded_onto_the_nodes(healthy, call):
    healthy.put("deployments", deployment(image="shardwise-trainer:1"))
    healthy.put("nodes", node("docker.io/library/shardwise-trainer:1"))
    assert checks(call)[0]["images"]["level"] == "ok"


def test_no_operator(healthy, call):
    healthy.remove("deployments", "shardwise-system", "shardwise")
    found, code = checks(call)
    assert (found["operator"]["level"], code) == ("fail", 1)
    assert "images" not in found


def test_no_prometheus_operator(healthy, call):
    healthy.refuse(PROMETHEUS, 404, "NotFound", "no")
    found, code = checks(call)
    assert (found["prometheus"]["level"], code) == ("warn", 0)
    healthy.say(PROMETHEUS, {"resources": [{"kind": "ServiceMonitor"}]})
    assert "lacks PodMonitor, PrometheusRule" in checks(call)[0]["prometheus"]["message"]


def test_jobs_that_the_operator_has_not_seen(healthy, call):
    unseen = job("new")
    del unseen["status"]
    healthy.put(JOBS, unseen)
    found, _ = checks(call)
    assert found["jobs"]["level"] == "warn"
    assert "1 of 2 jobs not seen" in found["jobs"]["message"]


def test_an_old_cluster_has_no_cel(healthy, call):
    healthy.say("/version", {"major": "1", "minor": "20+", "gitVersion": "v1.20.5"})
    found, _ = checks(call)
    assert found["cluster"]["level"] == "warn"
    assert "before 1.25 there is no CEL" in found["cluster"]["message"]


def test_what_may_not_be_looked_at_is_a_warning(healthy, call):
    healthy.refuse("/apis/apps/v1/deployments", 403, "Forbidden", "cannot list deployments")
    found, code = checks(call)
    assert (found["operator"]["level"], code) == ("warn", 0)
    assert "could not be checked: cannot list deployments" in found["operator"]["message"]


def test_no_cluster_at_all(call, kubeconfig):
    kubeconfig.write_text("not: a kubeconfig")
    done = call("doctor")
    assert done.exit_code == 1
    assert "✗ cluster" in done.stdout


def test_another_projects_jobs_of_the_same_name(api, call):
    group = "trainer.kubeflow.org"
    assert f"{group}/v1alpha1" not in call("doctor").stdout
    api.say(f"/apis/{group}", {"versions": [{"groupVersion": f"{group}/v1alpha1"}]})
    api.say(f"/apis/{group}/v1alpha1", {"resources": [{"name": "optimizationjobs"}]})
    shown = call("doctor").stdout
    assert f"{group}/v1alpha1 has optimizationjobs too" in shown
    assert "say optimizationjobs.shardwise.dev or optjob" in shown
