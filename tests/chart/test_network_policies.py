"""The operator's NetworkPolicy: the workers that it serves, what reads metrics, nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardwise.api import environment as env
from shardwise_operator.observe import job_view
from shardwise_operator.render import network_policy_manifest
from shardwise_operator.render.pods import labels
from shardwise_operator.settings import Settings

JOB = job_view({"metadata": {"name": "digits", "namespace": "team-a", "uid": "job-uid"}})
PROMETHEUS = {
    "namespaceSelector": {},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
}


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def by_port(policy: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Who is let in on each port; a rule without `from` would let everybody in."""
    return {
        port["port"]: rule["from"] for rule in policy["spec"]["ingress"] for port in rule["ports"]
    }


def settings(objects: list[dict[str, Any]]) -> Settings:
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return Settings.from_environment(
        {entry["name"]: entry.get("value", "") for entry in container["env"]}
    )


def test_workers_reach_the_coordinator_and_prometheus_the_metrics(render) -> None:
    objects = render()
    policy = one(objects, "NetworkPolicy")
    pod = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod.items()
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    rules = by_port(policy)
    assert rules.keys() == {7070, 8080}
    (workers,) = rules[7070]
    assert workers["namespaceSelector"] == {}
    assert workers["podSelector"]["matchLabels"].items() <= labels(JOB).items()
    assert rules[8080] == [PROMETHEUS]


@pytest.mark.parametrize(("kubernetes", "by_name"), [("1.20.2", False), ("1.34.0", True)])
def test_only_namespaces_that_are_served_are_let_in(render, kubernetes: str, by_name: bool) -> None:
    policy = one(render("watchNamespaces={team-a,team-b}", kubernetes=kubernetes), "NetworkPolicy")
    (workers,) = by_port(policy)[7070]
    expression = {
        "key": "kubernetes.io/metadata.name",
        "operator": "In",
        "values": ["team-a", "team-b"],
    }
    expected = {"matchExpressions": [expression]} if by_name else {}
    assert workers["namespaceSelector"] == expected


def test_the_ports_of_the_values_are_those_of_the_policy(render) -> None:
    policy = one(render("coordinator.port=17070", "metrics.port=18080"), "NetworkPolicy")
    assert by_port(policy).keys() == {17070, 18080}


def test_the_operator_is_told_what_the_values_say(render) -> None:
    found = settings(render())
    assert found.network_policies is True
    assert found.metrics_from == (PROMETHEUS,)
    objects = render("networkPolicy.enabled=false")
    assert settings(objects).network_policies is False
    assert not [item for item in objects if item["kind"] == "NetworkPolicy"]
    assert "networkpolicies" not in json.dumps(objects)


def test_egress_is_narrowed_where_asked(render) -> None:
    policy = one(render("networkPolicy.egress.enabled=true"), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 443, 6443]


def test_a_jobs_policy_is_for_its_workers_alone() -> None:
    policy = network_policy_manifest(JOB, [PROMETHEUS])
    assert policy["metadata"]["namespace"] == "team-a"
    assert policy["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    spec = policy["spec"]
    same = {"matchLabels": {"shardwise.dev/job-uid": "job-uid"}}
    assert spec["podSelector"] == same
    # A peer without a namespaceSelector is of the policy's own namespace.
    assert spec["ingress"][0] == {"from": [{"podSelector": same}]}
    assert spec["ingress"][1] == {
        "from": [PROMETHEUS],
        "ports": [{"protocol": "TCP", "port": env.METRICS_PORT_NUMBER}],
    }
    # An empty list of peers would let everybody in: there is no such rule.
    assert len(network_policy_manifest(JOB, [])["spec"]["ingress"]) == 1
