"""NetworkPolicies of the chart and of jobs, enforced: who reaches a worker and the coordinator.

The same tries are made without enforcement first, when all of them must succeed: a try that fails
for another reason would show nothing. A pod with a worker's labels copied is let in: policies know
no more than labels. What keeps it out is the authentication of the exchange and of the coordinator.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import slow
from images import Image
from kubectl import Kubectl, wait_until

from shardwise.api import environment as env

VICTIM, NEIGHBOUR = "victim", "neighbour"
METRICS, EXCHANGE, COORDINATOR = "metrics", "exchange", "coordinator"
CONNECT_SECONDS = 3
CONNECT = f"""
import socket, sys
for each in sys.argv[1:]:
    host, _, port = each.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout={CONNECT_SECONDS}).close()
    except OSError as error:
        print(each, error)
    else:
        print(each, "open")
"""
LISTEN = """
import socket
door = socket.create_server(("", 0))
print(door.getsockname()[1], flush=True)
while True:
    door.accept()[0].close()
"""
"""A worker listens for its peers only while its group forms: this stands for that."""
LISTENS = "0A"
Tries = dict[str, dict[str, bool]]
"""By who tries, then by what is tried: whether the connection opens."""


def pod(namespace: Kubectl, name: str, image: Image, labels: dict[str, str]) -> None:
    container = {
        "name": "main",
        "image": str(image),
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "3600"],
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    namespace.apply(manifest)


def runs(namespace: Kubectl, name: str) -> None:
    wait_until(
        f"{name} runs",
        lambda: ((namespace.get("pod", name) or {}).get("status") or {}).get("phase") == "Running",
    )


def exchange_ports(namespace: Kubectl, name: str) -> list[int]:
    """What the worker listens on for its peers."""
    pid = slow.first_process(slow.worker(namespace, name, 0)).pid
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            loopback = address in ("0100007F", "00000000000000000000000001000000")
            if line.split()[3] == LISTENS and not loopback:
                ports.add(int(port, 16))
    return sorted(ports - {env.METRICS_PORT_NUMBER})


@contextmanager
def listening(namespace: Kubectl, name: str) -> Iterator[int]:
    """A port of the pod's that takes connections."""
    command = namespace.command("exec", name, "--", "python", "-c", LISTEN)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=namespace.environment()
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def opens(namespace: Kubectl, name: str, targets: dict[str, str]) -> dict[str, bool]:
    command = ("exec", name, "--", "python3", "-c", CONNECT, *targets.values())
    said = dict(line.split(" ", 1) for line in namespace.run(*command).stdout.splitlines())
    return {what: said[address] == "open" for what, address in targets.items()}


def test_strangers_reach_neither_workers_nor_the_coordinator(
    release: Kubectl,
    namespace: Kubectl,
    images: dict[str, Image],
    policed: Callable[[], AbstractContextManager[None]],
) -> None:
    elsewhere = release.within("default")
    for name in (VICTIM, NEIGHBOUR):
        slow.start(namespace, name, workers={"replicas": 2})
    pod(elsewhere, "stranger", images["operator"], {})
    for name in (VICTIM, NEIGHBOUR):
        slow.trains_on(namespace, name, 2, {})
    victim = slow.worker(namespace, VICTIM, 0)
    copied = victim["metadata"]["labels"]
    pod(namespace, "bystander", images["operator"], {})
    pod(namespace, "impostor", images["operator"], copied)
    service = release.get("service", "shardwise-coordinator")
    assert service is not None
    assert not exchange_ports(namespace, VICTIM), "its group is formed: it listens to nobody"
    address = victim["status"]["podIP"]
    targets = {
        METRICS: f"{address}:{env.METRICS_PORT_NUMBER}",
        COORDINATOR: f"{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}",
    }
    who = {
        "another namespace": (elsewhere, "stranger"),
        "the same namespace": (namespace, "bystander"),
        "another job": (namespace, f"{NEIGHBOUR}-0"),
        "copied labels": (namespace, "impostor"),
        "the same job": (namespace, f"{VICTIM}-1"),
    }
    for client, name in who.values():
        runs(client, name)

    def tries() -> Tries:
        with ThreadPoolExecutor(len(who)) as pool:
            done = pool.map(lambda each: opens(*each, targets), who.values())
            return dict(zip(who, done, strict=True))

    try:
        with listening(namespace, f"{VICTIM}-0") as port:
            targets[EXCHANGE] = f"{address}:{port}"
            everything = dict.fromkeys(targets, True)
            assert tries() == dict.fromkeys(who, everything), "no policy is enforced"
            with policed():
                seen = tries()
    finally:
        elsewhere.run("delete", "pod", "stranger", "--wait=false", check=False)
    nothing = dict.fromkeys(targets, False)
    assert seen == {
        "another namespace": nothing,
        "the same namespace": nothing,
        "another job": {**nothing, COORDINATOR: True},
        "copied labels": everything,
        "the same job": everything,
    }
    with policed():  # the group's next connections are judged as well
        before = slow.generation(slow.trains_on(namespace, VICTIM, 2, {}))
        slow.kill_trainer(slow.worker(namespace, VICTIM, 1))
        slow.trains_on(namespace, VICTIM, 2, {"Killed": 1, "Joined": 1}, above=before)
