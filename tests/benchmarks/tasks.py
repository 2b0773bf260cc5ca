"""A hundred tasks: a pool of warm workers beside one worker in sequence, and beside a pod a task.

    python tests/benchmarks/tasks.py [--tasks 100] [--workers 4]             this machine
    python tests/benchmarks/tasks.py --cluster IMAGE [--namespace NAME]      KUBECONFIG's cluster

On a cluster the peer is one native Job a task with the same image, as many at once as the pool has
workers. Prints seconds from start to end, ratios, and the pool's utilization. The weights of all
tasks are compared as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LIMIT_SECONDS = 3600
POLL_SECONDS = 0.5
RATES = ("0.05", "0.1", "0.2", "0.3", "0.4")
TRAINER = {
    "entrypoint": "shardwise.examples.digits:task",
    "epochs": 2,
    "batchSize": 128,
    "shards": 4,
    "seed": 7,
    "evaluateEveryEpochs": 0,
}


def job(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    kind = {"apiVersion": "shardwise.dev/v1alpha1", "kind": "OptimizationJob"}
    return {**kind, "metadata": {"name": name}, "spec": {"trainer": TRAINER, **spec}}


def sweep(tasks: int, workers: int) -> dict[str, Any]:
    parameters = [
        {"name": "learning_rate", "values": list(RATES)},
        {"name": "hidden", "values": [8 * n for n in range(1, tasks // len(RATES) + 1)]},
    ]
    spec = {
        "sweep": {"parameters": parameters, "algorithm": "Grid"},
        "objectives": [{"metric": "accuracy", "direction": "Maximize"}],
    }
    return job("pool", {"tasks": spec, "workers": {"replicas": workers}})


def alone(tasks: int) -> Iterator[dict[str, Any]]:
    """The same tasks, each a job of its own, in the pool's order."""
    for rate in RATES:
        for n in range(1, tasks // len(RATES) + 1):
            trainer = {**TRAINER, "parameters": {"learning_rate": rate, "hidden": 8 * n}}
            yield job("alone", {"trainer": trainer, "workers": {"replicas": 1}})


def run_here(manifest: dict[str, Any], folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of `shardwise run`, start of Python included, and its result."""
    folder.mkdir(parents=True)
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "shardwise.cli.main", "run", str(file)]
    before = time.monotonic()
    subprocess.run(
        [*command, "--output", str(folder / "out")],
        check=True,
        capture_output=True,
        timeout=LIMIT_SECONDS,
    )
    seconds = time.monotonic() - before
    return seconds, json.loads((folder / "out" / "result.json").read_text())


def hashes(result: dict[str, Any]) -> list[str]:
    return [task["weightsSha256"] for task in result["tasks"]]


def here(tasks: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool, pooled = run_here(sweep(tasks, workers), folder / "pool")
        single, in_sequence = run_here(sweep(tasks, 1), folder / "single")
        before = time.monotonic()
        sample = [
            run_here(each, folder / f"alone-{n}")[1]["weightsSha256"]
            for n, each in enumerate(alone(tasks))
            if n % 10 == 0
        ]
        process = (time.monotonic() - before) / len(sample) * tasks
    assert hashes(pooled) == hashes(in_sequence), "a task's bytes depend on the pool"
    assert hashes(pooled)[::10] == sample, "a task's bytes depend on the pool"
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {tasks} tasks")
    print(f"pool of {workers}:             {pool:8.1f} s")
    print(f"one worker in sequence: {single:8.1f} s   {single / pool:.2f} times the pool's")
    print(f"a process a task:       {process:8.1f} s   {process / pool:.2f} times (of every tenth)")


class Cluster:
    """kubectl on a cluster, in one namespace."""

    def __init__(self, namespace: str) -> None:
        rig = Path(__file__).parents[1] / "cluster" / "rig"
        sys.path.insert(0, str(rig))
        from tools import tool  # type: ignore[import-not-found]

        self._command = [str(tool("kubectl")), "--namespace", namespace]

    def run(self, *arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.run("apply", "-f", "-", given=yaml.safe_dump_all(objects))

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("get", *arguments, "-o", "json"))
        return found


def native(number: int, manifest: dict[str, Any], image: str) -> list[dict[str, Any]]:
    """One task as a native Job, its manifest from a ConfigMap."""
    name = f"task-{number}"
    container = {
        "name": "trainer",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "shardwise.cli.main"],
        "args": ["run", "/job/job.yaml", "--output", "/output"],
        "env": [{"name": "MPLCONFIGDIR", "value": "/tmp"}, {"name": "HOME", "value": "/tmp"}],
        "volumeMounts": [
            {"name": "job", "mountPath": "/job"},
            {"name": "output", "mountPath": "/output"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    volumes = [
        {"name": "job", "configMap": {"name": name}},
        {"name": "output", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    pod = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    text = yaml.safe_dump(manifest)
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"job.yaml": text},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "labels": {"benchmark": "tasks"}},
            "spec": {"backoffLimit": 0, "template": {"spec": pod}},
        },
    ]


def one_pod_a_task(cluster: Cluster, tasks: int, at_once: int, image: str) -> float:
    waiting = [native(n, each, image) for n, each in enumerate(alone(tasks))]
    before = time.monotonic()
    begun = 0
    while time.monotonic() - before < LIMIT_SECONDS:
        jobs = cluster.get("jobs", "--selector=benchmark=tasks")["items"]
        failed = [each for each in jobs if each["status"].get("failed")]
        assert not failed, failed[0]["metadata"]["name"]
        ended = sum(bool(each["status"].get("succeeded")) for each in jobs)
        if ended == tasks:
            return time.monotonic() - before
        room = min(at_once - (begun - ended), tasks - begun)
        if room > 0:
            cluster.apply(*(item for each in waiting[begun : begun + room] for item in each))
            begun += room
        else:
            time.sleep(POLL_SECONDS)
    raise TimeoutError(f"not all of {tasks} Jobs ended within {LIMIT_SECONDS} s")


def pool_on(cluster: Cluster, tasks: int, workers: int) -> tuple[float, dict[str, Any]]:
    before = time.monotonic()
    cluster.apply(sweep(tasks, workers))
    while time.monotonic() - before < LIMIT_SECONDS:
        status = cluster.get("optjob", "pool").get("status") or {}
        if status.get("state") in ("Succeeded", "Failed"):
            assert status["state"] == "Succeeded", status
            return time.monotonic() - before, status
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"the pool did not end within {LIMIT_SECONDS} s")


def on_cluster(tasks: int, workers: int, image: str, namespace: str) -> None:
    cluster = Cluster(namespace)
    cluster.run("create", "namespace", namespace)
    try:
        pool, status = pool_on(cluster, tasks, workers)
        print(f"load {os.getloadavg()[0]:.1f}, {tasks} tasks, {workers} at once")
        used = status["tasks"]["utilization"]
        print(f"pool of {workers}:   {pool:8.1f} s, from apply to Succeeded; utilization {used}")
        pods = one_pod_a_task(cluster, tasks, workers, image)
        print(f"a Job a task: {pods:8.1f} s   {pods / pool:.2f} times the pool's")
    finally:
        cluster.run("delete", "namespace", namespace, "--wait=false")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--cluster", metavar="IMAGE", help="the trainer's image, on all nodes")
    parser.add_argument("--namespace", default="benchmark-tasks")
    given = parser.parse_args()
    if given.cluster:
        on_cluster(given.tasks, given.workers, given.cluster, given.namespace)
    else:
        here(given.tasks, given.workers)


if __name__ == "__main__":
    main()
