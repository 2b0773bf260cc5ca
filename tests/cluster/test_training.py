"""The main way: the example is applied, trains on both nodes, tells how far it is, and goes."""

from __future__ import annotations

from pathlib import Path

from jobs import (
    assert_restricted,
    assert_succeeded,
    example,
    job,
    local_result,
    wait_ended,
    wait_job,
)
from kubectl import Kubectl


def test_digits_trains_over_both_nodes_to_the_bytes_of_local_mode(
    namespace: Kubectl, tmp_path: Path
) -> None:
    manifest = example("digits")
    namespace.apply(manifest)
    seen = wait_job(
        namespace,
        "digits",
        "progress shows while it trains",
        lambda found: found.get("status", {}).get("progress", {}).get("percent", 0) > 0,
    )
    assert seen["status"]["workers"]["summary"] == "4/4"
    found = wait_ended(namespace, "digits")
    assert_succeeded(found)

    pods = namespace.pods("digits")
    assert sorted(pod["metadata"]["name"] for pod in pods) == [f"digits-{i}" for i in range(4)]
    assert len({pod["spec"]["nodeName"] for pod in pods}) >= 2
    for pod in pods:
        assert_restricted(pod)
        name = pod["metadata"]["name"]
        assert f"[{name}]" in namespace.run("logs", name).stdout, "its log, on whichever node"

    line = namespace.run("get", "optjob", "digits").stdout.splitlines()
    assert line[0].split()[:2] == ["NAME", "STATE"]
    assert line[1].split()[:3] == ["digits", "Succeeded", "100"]

    local = local_result(manifest, tmp_path, workers=2)
    assert found["status"]["result"]["weightsSha256"] == local["weightsSha256"]
    assert found["status"]["result"]["optimizerSha256"] == local["optimizerSha256"]
    metrics = {m["name"]: float(m["value"]) for m in found["status"]["result"]["metrics"]}
    assert metrics["accuracy"] >= 0.97

    namespace.run("delete", "optjob", "digits", "--timeout=60s")
    namespace.gone(("pods", "services", "endpoints"), "shardwise.dev/job-name=digits")


def test_the_number_of_workers_and_the_partition_leave_the_bytes_alone(
    namespace: Kubectl,
) -> None:
    namespace.apply(job("alone", workers=1))
    namespace.apply(job("three", workers=3, partition="parameters"))
    results = [wait_ended(namespace, name) for name in ("alone", "three")]
    for found in results:
        assert_succeeded(found)
    assert len({found["status"]["result"]["weightsSha256"] for found in results}) == 1


def test_the_operator_runs_restricted_and_tells_how_it_is(release: Kubectl) -> None:
    (pod,) = release.list("pods", "app.kubernetes.io/component=operator")
    assert_restricted(pod, token=True)
    inside = f"/api/v1/namespaces/{release.namespace}"
    for page in ("healthz", "readyz"):
        path = f"{inside}/pods/{pod['metadata']['name']}:8081/proxy"
        assert release.run("get", "--raw", f"{path}/{page}").stdout
    path = f"{inside}/services/shardwise-metrics:metrics/proxy"
    assert "shardwise_" in release.run("get", "--raw", f"{path}/metrics").stdout
