"""What the chart installs for Prometheus and Grafana: nothing unless asked for, then all of it."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from boards import ROOT, boards
from monitors import scrape_config, targets
from server import Prometheus, until
from tools import tool

from shardwise_operator import names
from shardwise_operator.certificate import make_certificate

CHART = ROOT / "charts" / "shardwise"
ALL = [
    f"{part}.enabled=true"
    for part in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboards")
]


def render(*settings: str) -> list[dict[str, Any]]:
    flags = [flag for setting in settings for flag in ("--set", setting)]
    done = subprocess.run(
        [str(tool("helm")), "template", "shardwise", str(CHART), "--namespace", "system", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return render(*ALL)


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def test_nothing_unless_asked_for() -> None:
    kinds = {item["kind"] for item in render()}
    assert kinds.isdisjoint({"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"})


def test_the_dashboards_are_as_generated(objects) -> None:
    maps = of_kind(objects, "ConfigMap")
    found = {}
    for item in maps:
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["namespace"] == "system"
        (content,) = item["data"].values()
        found[item["metadata"]["name"]] = json.loads(content)
    assert {board["uid"]: board for board in found.values()} == boards()
    assert set(found) == {f"shardwise-dashboard-{name}" for name in ("fleet", "job", "operator")}


def test_the_sidecars_own_label_and_namespace() -> None:
    maps = of_kind(
        render(
            "dashboards.enabled=true",
            "dashboards.label=team/dashboards",
            "dashboards.labelValue=yes",
            "dashboards.namespace=monitoring",
            "dashboards.annotations.grafana_folder=Shardwise",
        ),
        "ConfigMap",
    )
    for item in maps:
        assert item["metadata"]["labels"]["team/dashboards"] == "yes"
        assert item["metadata"]["namespace"] == "monitoring"
        assert item["metadata"]["annotations"] == {"grafana_folder": "Shardwise"}


def test_the_service_monitor_finds_a_port_of_the_operator(objects) -> None:
    (monitor,) = of_kind(objects, "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    ports = [
        port["name"]
        for service in of_kind(objects, "Service")
        if wanted <= service["metadata"]["labels"].items()
        for port in service["spec"]["ports"]
    ]
    assert ports.count(endpoint["port"]) == 1


def test_the_pod_monitor_selects_workers_by_their_labels(objects) -> None:
    (monitor,) = of_kind(objects, "PodMonitor")
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected == {names.MANAGED_BY: names.MANAGER, names.APP_NAME: names.WORKER}
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is False
    assert monitor["spec"]["sampleLimit"] > 0
    assert monitor["spec"]["labelLimit"] > 0
    given = {rule["targetLabel"]: rule["sourceLabels"] for rule in endpoint["relabelings"]}
    escaped = {
        label: "__meta_kubernetes_pod_label_" + label.translate(str.maketrans("./-", "___"))
        for label in (names.JOB_NAME, names.INDEX)
    }
    assert given == {"job_name": [escaped[names.JOB_NAME]], "worker": [escaped[names.INDEX]]}


def test_only_the_served_namespaces_are_looked_into() -> None:
    (monitor,) = of_kind(render(*ALL, "watchNamespaces={team-a,team-b}"), "PodMonitor")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["team-a", "team-b"]}


def test_the_rule_holds_the_alerts_and_leads_to_your_runbooks() -> None:
    (rule,) = of_kind(
        render(*ALL, "prometheusRule.runbooks=https://wiki.example/shardwise/"), "PrometheusRule"
    )
    alerts = yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text())
    for group, source in zip(rule["spec"]["groups"], alerts["groups"], strict=True):
        for found, wanted in zip(group["rules"], source["rules"], strict=True):
            url = found["annotations"].pop("runbook_url")
            assert url == f"https://wiki.example/shardwise/{found['alert']}.md"
            wanted["annotations"].pop("runbook_url")
            assert found == wanted


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor", "PrometheusRule"])
def test_labels_by_which_a_prometheus_selects(kind: str) -> None:
    part = kind[0].lower() + kind[1:]
    (item,) = of_kind(render(f"{part}.enabled=true", f"{part}.additionalLabels.release=prom"), kind)
    assert item["metadata"]["labels"]["release"] == "prom"


def test_prometheus_finds_by_the_monitors_what_they_are_for(objects, tmp_path) -> None:
    """As a Prometheus Operator would hand them on; tests/cluster scrapes a real job with them."""
    (service,) = (
        item
        for item in of_kind(objects, "Service")
        if {"name": "metrics"}.items() <= item["spec"]["ports"][0].items()
    )
    service["metadata"]["namespace"] = "system"
    endpoints = {
        "kind": "Endpoints",
        "metadata": service["metadata"],
        "subsets": [
            {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "metrics", "port": 1}]}
        ],
    }
    worker = {
        names.MANAGED_BY: names.MANAGER,
        names.APP_NAME: names.WORKER,
        names.JOB_NAME: "digits",
        names.INDEX: "2",
    }

    def pod(name: str, labels: dict[str, str], port: int) -> dict[str, Any]:
        ports = [{"name": "metrics", "containerPort": port}, {"containerPort": 9}]
        return {
            "kind": "Pod",
            "metadata": {"namespace": "team", "name": name, "labels": labels},
            "spec": {"containers": [{"ports": ports}]},
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        }

    seen = [service, endpoints, pod("digits-2", worker, 2), pod("other", {"a/b": "c"}, 3)]
    (tmp_path / "targets.json").write_text(json.dumps(targets(seen)))
    monitors = [*of_kind(objects, "ServiceMonitor"), *of_kind(objects, "PodMonitor")]
    given = {"token": tmp_path / "token", "authority": tmp_path / "authority.pem"}
    given["token"].write_text("unused")
    given["authority"].write_text(make_certificate(["x"], datetime.now(UTC)).certificate)
    file = tmp_path / "targets.json"
    configs = [scrape_config(each, file, interval="1s", **given) for each in monitors]
    with Prometheus(tmp_path, configs, "1s") as prometheus:
        found = until("both targets", lambda: _two(prometheus.query("up")), 60)
    assert found == {
        "127.0.0.1:1": {"namespace": "system"},
        "127.0.0.1:2": {
            "namespace": "team",
            "pod": "digits-2",
            "job_name": "digits",
            "worker": "2",
        },
    }


def _two(series: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The labels of the scraped by their address, once there are two."""
    found = {each["metric"].pop("instance"): each["metric"] for each in series}
    for labels in found.values():
        del labels["__name__"], labels["job"]
    return found if len(found) >= 2 else {}


def test_a_monitors_unknown_field_is_not_passed_over(objects, tmp_path) -> None:
    (monitor,) = of_kind(objects, "PodMonitor")
    with pytest.raises(ValueError, match="podTargetLabels"):
        scrape_config(
            {**monitor, "spec": {**monitor["spec"], "podTargetLabels": 1}}, tmp_path / "targets"
        )
