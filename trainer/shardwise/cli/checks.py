"""The checks of `shardwise doctor`. Each reads the cluster and changes nothing in it."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from shardwise import __version__
from shardwise.cli.cluster import Cluster
from shardwise.cli.errors import ApiError
from shardwise.cli.names import GROUP, MANAGER, OPERATOR_SELECTOR, PLURAL, VERSION
from shardwise.cli.view.fields import items, pick, plural, text

CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"
INSTALL = "helm upgrade --install shardwise charts/shardwise -n shardwise-system --create-namespace"
OLDEST_WITH_CEL = (1, 25)
SHOWN = 4
OTHER_GROUP = "trainer.kubeflow.org"

RIGHTS: Sequence[tuple[str, str, Sequence[str], str]] = (
    (GROUP, PLURAL, ("get", "list", "watch"), "get, watch, describe"),
    (GROUP, PLURAL, ("create", "patch", "delete"), "submit, suspend, resume, delete"),
    (GROUP, f"{PLURAL}/scale", ("patch",), "scale"),
    ("", "pods", ("get", "list", "watch"), "watch, describe"),
    ("", "pods/log", ("get",), "logs"),
    ("", "events", ("list", "watch"), "describe, explain"),
)
"""What the commands need: API group, resource, verbs, and the commands that need them."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    level: Literal["ok", "warn", "fail"]
    name: str
    message: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def client() -> Check:
    """This program, and whether it can run jobs here."""
    about = f"shardwise {__version__}, Python {platform.python_version()}"
    if importlib.util.find_spec("torch") is None:
        return Check(
            "ok",
            "client",
            f"{about}; without torch, so `shardwise run` is not possible here",
            "for local runs: pip install 'shardwise[trainer]'",
        )
    return Check("ok", "client", f"{about}, with torch for local runs")


def server(cluster: Cluster, version: Mapping[str, Any]) -> Check:
    """The API server's address and version."""
    told = text(version, "gitVersion", "of unknown version")
    where = f"Kubernetes {told} at {cluster.server}, namespace {cluster.namespace}"
    number = _numbers(version)
    if number and number < OLDEST_WITH_CEL:
        return Check(
            "warn",
            "cluster",
            f"{where}; before 1.25 there is no CEL: the API server lets manifests through that the "
            "operator then refuses",
            "submit with `shardwise submit`, which checks every rule first",
        )
    return Check("ok", "cluster", where)


def _numbers(version: Mapping[str, Any]) -> tuple[int, int] | None:
    major, minor = text(version, "major"), text(version, "minor").rstrip("+")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def crd(cluster: Cluster) -> list[Check]:
    """Whether the CRD is there, and knows the fields that this program does."""
    try:
        found = cluster.call("GET", CRD)
    except ApiError as error:
        if error.status == 403:
            return _served(cluster)
        if error.status != 404:
            raise
        return [Check("fail", "crd", f"the CRD {PLURAL}.{GROUP} is not installed", INSTALL)]
    versions = {text(v, "name"): v for v in items(found, "spec.versions") if v.get("served")}
    if VERSION not in versions:
        told = ", ".join(versions) or "none"
        return [Check("fail", "crd", f"the CRD serves {told}, not {VERSION}", INSTALL)]
    lacks = missing_fields(pick(versions[VERSION], "schema.openAPIV3Schema") or {})
    if lacks:
        more = f" and {len(lacks) - SHOWN} more" if len(lacks) > SHOWN else ""
        message = (
            f"the CRD is of another version: it does not know {', '.join(lacks[:SHOWN])}{more}"
        )
        return [Check("warn", "crd", message, f"upgrade it: {INSTALL}")]
    return [Check("ok", "crd", f"{PLURAL}.{GROUP}/{VERSION} with all the fields of this version")]


def names(cluster: Cluster) -> list[Check]:
    """Whether another project's OptimizationJob makes a bare `kubectl get optimizationjobs`
    ambiguous: Kubeflow Trainer has one since 2.3."""
    found = cluster.call("GET", f"/apis/{OTHER_GROUP}")
    versions = [text(each, "groupVersion") for each in items(found, "versions")]
    for version in versions:
        kinds = items(cluster.call("GET", f"/apis/{version}"), "resources")
        if any(text(each, "name") == PLURAL for each in kinds):
            return [
                Check(
                    "warn",
                    "names",
                    f"{version} has {PLURAL} too: `kubectl get {PLURAL}` may list those instead",
                    f"with kubectl say {PLURAL}.{GROUP} or optjob; `shardwise` always means ours",
                )
            ]
    return []


def _other_names(cluster: Cluster) -> list[Check]:
    try:
        return names(cluster)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return []


def _served(cluster: Cluster) -> list[Check]:
    """What a user who may not read CRDs can tell."""
    try:
        cluster.call("GET", f"/apis/{GROUP}/{VERSION}")
    except ApiError as error:
        if error.status != 404:
            raise
        return [Check("fail", "crd", f"{GROUP}/{VERSION} is not served", INSTALL)]
    message = f"{GROUP}/{VERSION} is served; you may not read the CRD, so its fields are unknown"
    return [Check("ok", "crd", message)]


def missing_fields(schema: Mapping[str, Any]) -> list[str]:
    """Paths of the fields that this version knows and the schema does not, outermost only."""
    from shardwise.api.schema import structural

    return list(_missing(structural(cel=False), schema, ""))


def _missing(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str) -> Iterator[str]:
    known = theirs.get("properties") or {}
    for name, schema in (ours.get("properties") or {}).items():
        path = f"{at}.{name}" if at else name
        if name not in known:
            yield path
        else:
            yield from _missing(schema, known[name], path)
    if ours.get("items"):
        yield from _missing(ours["items"], theirs.get("items") or {}, f"{at}[]")


def rights(cluster: Cluster) -> list[Check]:
    """What the user may do in the namespace."""
    lacking = [
        (resource, denied, commands)
        for group, resource, verbs, commands in RIGHTS
        if (
            denied := [
                v for v in verbs if not cluster.allowed(v, resource, cluster.namespace, group)
            ]
        )
    ]
    if not lacking:
        return [Check("ok", "rights", f"you may use every command in {cluster.namespace}")]
    remedy = (
        "ask for the role `edit` (its part for jobs comes with the chart): kubectl create "
        f"rolebinding USER-edit --clusterrole=edit --user=USER -n {cluster.namespace}"
    )
    told = "; ".join(
        f"{', '.join(denied)} {resource} (for {commands})" for resource, denied, commands in lacking
    )
    may_see = not any(resource == PLURAL and "get" in denied for resource, denied, _ in lacking)
    return [Check("warn" if may_see else "fail", "rights", f"you may not {told}", remedy)]


def operator(cluster: Cluster) -> list[Check]:
    """Whether the operator is ready, of this version, and watches the namespace."""
    found = cluster.list("deployments", namespace="", selector=OPERATOR_SELECTOR)["items"]
    if not found:
        return [Check("fail", "operator", "there is no operator in the cluster", INSTALL)]
    return [check for deployment in found for check in _operator(cluster, deployment)]


def _operator(cluster: Cluster, deployment: Mapping[str, Any]) -> list[Check]:
    where = f"{text(deployment, 'metadata.namespace')}/{text(deployment, 'metadata.name')}"
    ready, wanted = pick(deployment, "status.readyReplicas") or 0, pick(deployment, "spec.replicas")
    if ready < 1:
        namespace, _, name = where.partition("/")
        return [
            Check(
                "fail",
                "operator",
                f"{where} has no ready replica of {wanted}",
                f"kubectl -n {namespace} describe deployment {name}; kubectl -n {namespace} logs "
                f"deployment/{name}",
            )
        ]
    watched = _environment(deployment).get("SHARDWISE_NAMESPACES", "")
    if watched and cluster.namespace not in watched.split(","):
        return [
            Check(
                "fail",
                "operator",
                f"{where} watches {watched}, not {cluster.namespace}",
                f"add {cluster.namespace} to the chart's watchNamespaces, or use -n",
            )
        ]
    version = (pick(deployment, "metadata.labels") or {}).get("app.kubernetes.io/version", "?")
    level: Literal["ok", "warn"] = "ok" if ready >= (wanted or 1) else "warn"
    checks = [Check(level, "operator", f"{where} {version}, {ready} of {wanted} ready")]
    if version != __version__:
        checks.append(
            Check(
                "warn",
                "versions",
                f"this program is {__version__}, the operator {version}",
                f"pip install shardwise=={version}, or upgrade the chart",
            )
        )
    return checks


def _environment(deployment: Mapping[str, Any]) -> dict[str, str]:
    containers = items(deployment, "spec.template.spec.containers")
    return {
        text(entry, "name"): text(entry, "value")
        for container in containers
        for entry in items(container, "env")
    }


def images(cluster: Cluster) -> list[Check]:
    """Whether the workers' default image can be had: by what nodes hold and how it is named."""
    found = cluster.list("deployments", namespace="", selector=OPERATOR_SELECTOR)["items"]
    wanted = {_environment(deployment).get("SHARDWISE_TRAINER_IMAGE", "") for deployment in found}
    wanted.discard("")
    if not wanted:
        return []
    nodes = cluster.list("nodes", namespace="")["items"]
    return [_image(image, nodes) for image in sorted(wanted)]


def _image(image: str, nodes: Sequence[Mapping[str, Any]]) -> Check:
    holding = sum(any(_same_image(image, name) for name in _images(node)) for node in nodes)
    if holding:
        return Check("ok", "images", f"{image} is on {holding} of {plural(len(nodes), 'node')}")
    if _registry(image):
        return Check("ok", "images", f"{image} is pulled from {_registry(image)} by the first job")
    return Check(
        "warn",
        "images",
        f"{image} names no registry, and no node lists it",
        "load it onto the nodes (kind load docker-image, k3d image import), or push it and set the "
        "chart's trainer.image.repository",
    )


def _images(node: Mapping[str, Any]) -> list[str]:
    return [str(name) for one in items(node, "status.images") for name in one.get("names") or ()]


def _same_image(wanted: str, name: str) -> bool:
    """Nodes list an image without a registry under Docker Hub's name, which is what they pull."""
    return name in (wanted, f"docker.io/{wanted}", f"docker.io/library/{wanted}")


def _registry(image: str) -> str:
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else ""


def prometheus(cluster: Cluster) -> list[Check]:
    """Whether the Prometheus operator's kinds are there."""
    try:
        found = cluster.call("GET", "/apis/monitoring.coreos.com/v1")
    except ApiError as error:
        if error.status != 404:
            raise
        return [
            Check(
                "warn",
                "prometheus",
                "the Prometheus operator's CRDs are not installed; jobs do without",
                "for dashboards and alerts: install kube-prometheus-stack, or let your Prometheus "
                "scrape the operator's /metrics",
            )
        ]
    kinds = {text(resource, "kind") for resource in items(found, "resources")}
    wanted = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
    lacking = [kind for kind in wanted if kind not in kinds]
    if lacking:
        return [Check("warn", "prometheus", f"the Prometheus operator lacks {', '.join(lacking)}")]
    return [Check("ok", "prometheus", f"{', '.join(wanted)} can be created")]


def jobs(cluster: Cluster) -> list[Check]:
    """Whether the operator has looked at every job of the namespace."""
    found = cluster.list(PLURAL)["items"]
    unseen = [
        text(job, "metadata.name")
        for job in found
        if (pick(job, "metadata.generation") or 0) > (pick(job, "status.observedGeneration") or 0)
        and text(job, "spec.managedBy", MANAGER) == MANAGER
    ]
    if not unseen:
        message = f"{plural(len(found), 'job')} in {cluster.namespace}, all seen by the operator"
        return [Check("ok", "jobs", message)]
    message = (
        f"{len(unseen)} of {plural(len(found), 'job')} not seen by the operator as they are now"
    )
    named = ", ".join(unseen[:SHOWN])
    remedy = "look at the operator's log if this lasts for more than some seconds"
    return [Check("warn", "jobs", f"{message}: {named}", remedy)]


CHECKS: Sequence[Callable[[Cluster], list[Check]]] = (
    crd,
    _other_names,
    rights,
    operator,
    images,
    prometheus,
    jobs,
)
