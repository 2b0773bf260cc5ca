"""The chart: what it renders over a matrix of values, and what its schema refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shardwise_operator import access
from shardwise_operator.__main__ import STOP_SECONDS
from shardwise_operator.endpoint import endpoint_slice
from shardwise_operator.leader import RELEASE_SECONDS
from shardwise_operator.settings import CERTIFICATE_SECRET, Settings

CHART = Path(__file__).resolve().parents[2] / "charts" / "shardwise"
PDB = "PodDisruptionBudget"
DIGEST = "sha256:" + "a" * 64
MATRIX = {
    "defaults": [],
    "two namespaces": ["watchNamespaces={team-a,team-b}"],
    "no CRD": ["crds.enabled=false"],
    "CRD goes with the chart": ["crds.keep=false"],
    "no RBAC": ["rbac.create=false", "rbac.aggregate=false"],
    "account of another": ["serviceAccount.create=false", "serviceAccount.name=mine"],
    "digests": [f"operator.image.digest={DIGEST}", f"trainer.image.digest={DIGEST}"],
    "other ports": ["coordinator.port=17070", "metrics.port=18080"],
    "three replicas": ["operator.replicas=3"],
    "everything about the pod": [
        "operator.nodeSelector.disk=ssd",
        "operator.podLabels.team=blue",
        "operator.podAnnotations.note=x",
        "operator.priorityClassName=high",
        "operator.tolerations[0].key=spot",
        "imagePullSecrets[0].name=registry",
        "operator.topologySpreadConstraints[0].maxSkew=1",
        "operator.topologySpreadConstraints[0].topologyKey=zone",
        "operator.topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
        "operator.annotations.note=y",
        "operator.extraVolumes[0].name=certs",
        "operator.extraVolumes[0].emptyDir.medium=Memory",
        "operator.extraVolumeMounts[0].name=certs",
        "operator.extraVolumeMounts[0].mountPath=/certs",
    ],
    "no network policies": ["networkPolicy.enabled=false"],
    "network policies with egress": [
        "networkPolicy.egress.enabled=true",
        "networkPolicy.coordinatorFrom[0].ipBlock.cidr=10.0.0.0/16",
        "networkPolicy.metricsFrom=null",
    ],
    "another name": ["fullnameOverride=training"],
}
# What the operator calls, and no more; a new right here needs a line of code that uses it.
JOB_RIGHTS = {
    ("shardwise.dev", "optimizationjobs"): {"get", "list", "watch", "delete"},
    ("shardwise.dev", "optimizationjobs/status"): {"patch"},
    ("", "pods"): {"get", "list", "watch", "create", "delete"},
    ("", "services"): {"get", "create"},
    ("networking.k8s.io", "networkpolicies"): {"get", "create"},
    ("", "configmaps"): {"get"},
    ("", "events"): {"list", "create", "patch"},
}


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def service(objects: list[dict[str, Any]], port: str) -> tuple[dict[str, Any], Any]:
    """The metadata and the selector of the Service that has a port of this name."""
    (found,) = [
        item
        for item in of_kind(objects, "Service")
        if [entry["name"] for entry in item["spec"]["ports"]] == [port]
    ]
    return found["metadata"], found["spec"].get("selector")


def rights(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
    }


@pytest.fixture(scope="module", params=MATRIX.values(), ids=MATRIX.keys())
def objects(request: pytest.FixtureRequest, render) -> list[dict[str, Any]]:
    return render(*request.param)


def test_lint_is_strict_and_clean(helm) -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_objects_pass_the_schemas_of_kubernetes(objects) -> None:
    for item in objects:
        if item["kind"] != "CustomResourceDefinition":
            kubernetes_validate.validate(item, "1.34", strict=True)


def test_no_object_appears_twice(objects) -> None:
    names = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in objects
    ]
    assert len(names) == len(set(names))


def test_the_operator_runs_restricted(objects) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"] and container["resources"]["limits"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports.keys() == {"coordinator", "metrics", "health"}
        assert len(set(ports.values())) == 3
        probes = [container[name]["httpGet"] for name in container if name.endswith("Probe")]
        assert {probe["port"] for probe in probes} == {"health"}


def test_images_are_pinned_to_a_version(objects) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    for image in (container["image"], environment["SHARDWISE_TRAINER_IMAGE"]):
        assert "latest" not in image
        assert "@sha256:" in image or image.rpartition(":")[2]


def test_the_new_replica_stands_by_before_the_old_one_goes(objects) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    pod = deployment["spec"]["template"]["spec"]
    # To end what it does, and then to give the lease back.
    assert pod["terminationGracePeriodSeconds"] >= STOP_SECONDS + RELEASE_SECONDS + 5


@pytest.mark.parametrize(
    ("kubernetes", "version"), [("1.20.2", "policy/v1beta1"), ("1.34.0", "policy/v1")]
)
def test_several_replicas_keep_apart_and_are_drained_one_by_one(
    render, kubernetes: str, version: str
) -> None:
    objects = render("operator.replicas=2", kubernetes=kubernetes)
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    (budget,) = of_kind(objects, PDB)
    assert budget["apiVersion"] == version
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "selector": deployment["spec"]["selector"],
    }
    apart = deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    (preferred,) = apart["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"] == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": deployment["spec"]["selector"],
    }


def test_one_replica_may_be_drained_and_go_anywhere(render) -> None:
    objects = render()
    (deployment,) = of_kind(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert "affinity" not in deployment["spec"]["template"]["spec"]
    assert not of_kind(objects, PDB)


def test_selectors_match_the_pod_and_leave_out_what_changes(objects) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"], service(objects, "metrics")[1]]
    selectors += [b["spec"]["selector"]["matchLabels"] for b in of_kind(objects, PDB)]
    for selector in selectors:
        assert selector and selector.items() <= labels
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & selector.keys()


def test_the_service_leads_where_workers_are_sent(objects) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    name, namespace, _ = environment["SHARDWISE_COORDINATOR_SERVICE"].split(".")
    coordinator, selector = service(objects, "coordinator")
    assert (name, namespace) == (coordinator["name"], coordinator["namespace"])
    assert selector is None, "the leader writes its address there"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert environment["SHARDWISE_COORDINATOR_PORT"] == str(ports["coordinator"])
    assert environment["SHARDWISE_METRICS_PORT"] == str(ports["metrics"])


def test_the_address_that_the_leader_writes_fits_the_service(objects) -> None:
    coordinator, _ = service(objects, "coordinator")
    (of_service,) = [
        item["spec"]["ports"]
        for item in of_kind(objects, "Service")
        if item["metadata"] == coordinator
    ]
    written = endpoint_slice("ns", "name", "pod", "10.0.0.1", of_service[0]["port"])
    assert [(port["name"], port["protocol"]) for port in of_service] == [
        (port["name"], port["protocol"]) for port in written["ports"]
    ]


def test_rights_in_its_own_namespace_are_to_named_objects(objects, request) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    own = [role for role in of_kind(objects, "Role") if role["metadata"]["name"].endswith("-own")]
    for role in own:
        assert role["metadata"]["namespace"] == "shardwise-system"
        named = {
            (rule["resources"][0], *rule["resourceNames"]): set(rule["verbs"])
            for rule in role["rules"]
            if "resourceNames" in rule
        }
        coordinator = environment["SHARDWISE_COORDINATOR_SERVICE"].partition(".")[0]
        assert named == {
            ("secrets", CERTIFICATE_SECRET): {"get"},
            ("leases", environment["SHARDWISE_LEASE"]): {"get", "patch"},
            ("endpointslices", f"{coordinator}-ipv4", f"{coordinator}-ipv6"): {"patch"},
        }
        unnamed = [rule["verbs"] for rule in role["rules"] if "resourceNames" not in rule]
        assert unnamed == [["create"]] * 3
    assert own or "no RBAC" in request.node.name


def test_the_operator_knows_every_setting(objects) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", "x") for entry in container["env"]}
    fields = {f"SHARDWISE_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert environment.keys() <= fields
    Settings.from_environment(environment)


def test_bindings_name_roles_and_accounts_that_exist(objects, request) -> None:
    existing = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in objects
    }
    (deployment,) = of_kind(objects, "Deployment")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    for binding in of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding"):
        reference = binding["roleRef"]
        assert (
            reference["kind"],
            binding["metadata"].get("namespace"),
            reference["name"],
        ) in existing
        assert [subject["name"] for subject in binding["subjects"]] == [account]


def test_rights_over_all_namespaces(render) -> None:
    roles = {role["metadata"]["name"]: rights(role) for role in of_kind(render(), "ClusterRole")}
    assert roles["shardwise-jobs"] == JOB_RIGHTS
    assert roles["shardwise-worker-tokens"] == {
        ("authentication.k8s.io", "tokenreviews"): {"create"},
        ("authorization.k8s.io", "subjectaccessreviews"): {"create"},
    }
    plain = of_kind(render("metrics.authentication=false"), "ClusterRole")
    assert "subjectaccessreviews" not in json.dumps(plain)
    assert not [role for role in plain if role["metadata"]["name"].endswith("-metrics-reader")]


def test_those_named_may_read_the_metrics_and_nothing_else(render) -> None:
    objects = render("metrics.readers[0].name=prometheus", "metrics.readers[0].namespace=watch")
    (role,) = [
        item
        for item in of_kind(objects, "ClusterRole")
        if item["metadata"]["name"] == "shardwise-metrics-reader"
    ]
    assert role["rules"] == [{"nonResourceURLs": [access.PATH], "verbs": ["get"]}]
    (binding,) = [
        item
        for item in of_kind(objects, "ClusterRoleBinding")
        if item["roleRef"]["name"] == "shardwise-metrics-reader"
    ]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "prometheus", "namespace": "watch"}
    ]


def test_rights_in_two_namespaces_leave_only_token_reviews_to_the_cluster(render) -> None:
    objects = render("watchNamespaces={team-a,team-b}")
    bound = {binding["roleRef"]["name"] for binding in of_kind(objects, "ClusterRoleBinding")}
    assert bound == {"shardwise-worker-tokens"}
    roles = [role for role in of_kind(objects, "Role") if role["metadata"]["name"].endswith("jobs")]
    assert [role["metadata"]["namespace"] for role in roles] == ["team-a", "team-b"]
    assert all(rights(role) == JOB_RIGHTS for role in roles)


def test_only_one_secret_can_be_read(render) -> None:
    for role in of_kind(render(), "Role") + of_kind(render(), "ClusterRole"):
        for rule in role["rules"]:
            if "nonResourceURLs" in rule:
                assert rule == {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
                continue
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"] and rule["verbs"] != ["create"]:
                assert rule["resourceNames"] == ["shardwise-coordinator-tls"]
                assert rule["verbs"] == ["get"]


@pytest.mark.parametrize(
    ("kubernetes", "file"),
    [
        ("1.20.2", "crd-without-cel.yaml"),
        ("1.24.17", "crd-without-cel.yaml"),
        ("1.25.0", "crd.yaml"),
        ("1.34.0", "crd.yaml"),
    ],
)
def test_the_crd_is_the_one_that_the_server_takes(render, kubernetes: str, file: str) -> None:
    (crd,) = of_kind(render(kubernetes=kubernetes), "CustomResourceDefinition")
    assert crd["metadata"].get("annotations", {})["helm.sh/resource-policy"] == "keep"
    assert crd["spec"] == yaml.safe_load((CHART / "files" / file).read_text())["spec"]
    assert ("x-kubernetes-validations" in json.dumps(crd)) == (file == "crd.yaml")


@pytest.mark.parametrize(
    ("setting", "tells"),
    [
        ("operater.logLevel=INFO", "operater"),
        ("operator.image.tga=1", "tga"),
        ("operator.logLevel=loud", "logLevel"),
        ("watchNamespaces=team-a", "watchNamespaces"),
        ("watchNamespaces={Team_A}", "watchNamespaces"),
        ("crds.enabled=perhaps", "enabled"),
        ("coordinator.port=70700", "port"),
        ("coordinator.port=80", "port"),
        ("coordinator.port=8080", "coordinator.port and metrics.port are both 8080"),
        ("metrics.port=8081", "health.port and metrics.port are both 8081"),
        ("health.port=7070", "coordinator.port and health.port are both 7070"),
        ("metrics.readers[0].name=x", "namespace"),
        ("networkPolicy.metricsFrom[0].podSelectr.x=y", "podSelectr"),
        ("networkPolicy.egress.apiServerPorts={https}", "apiServerPorts"),
        ("operator.graceSeconds=0", "graceSeconds"),
        ("operator.image.digest=sha256:abc", "digest"),
        ("trainer.image.pullPolicy=Sometimes", "pullPolicy"),
        ("serviceAccount.create=false", "serviceAccount.name"),
        ("operator.replicas=two", "replicas"),
        ("operator.extraEnv[0].name=SHARDWISE_LEASE", "SHARDWISE_LEASE is set by the chart"),
        ("operator.extraVolumes[0].name=tmp", "extraVolumes"),
        ("operator.lease.durationSeconds=10", "renewSeconds"),
        ("operator.lease.retrySeconds=5", "retrySeconds"),
    ],
)
def test_a_mistake_in_the_values_is_refused_by_name(helm, setting: str, tells: str) -> None:
    done = helm("template", "shardwise", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert tells in done.stderr


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def check(values: dict[str, Any], level: dict[str, Any], path: str) -> None:
        if "$ref" in level:
            level = schema["definitions"][level["$ref"].rpartition("/")[2]]
        known = level.get("properties")
        if known is None:
            return
        assert level.get("additionalProperties") is False, path
        for name, value in values.items():
            assert name in known, f"{path}.{name}"
            if isinstance(value, dict):
                check(value, known[name], f"{path}.{name}")

    check(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")
