"""Faults of a running cluster, by name: what `test_random_faults.py` injects.

Each function injects one fault, and undoes it where the world would: a node that stopped comes back
after a while, a network that was cut is given back. None waits for the job to recover.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from containers import RUN, container
from kubectl import Kubectl, wait_until
from nodes import node_down, node_ready
from operators import kill_operator
from slow import kill_trainer

CALL_SECONDS = 60
AWAY_SECONDS = (1.0, 12.0)
"""How long nodes, kubelets and networks are away: from a hiccup to beyond the detection time."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may act on."""

    release: Kubectl
    namespace: Kubectl
    job: str
    dice: random.Random

    def running(self) -> dict[str, object] | None:
        """One of the job's pods that has a running container."""
        pods = self.namespace.pods(self.job)
        self.dice.shuffle(pods)
        for pod in pods:
            with contextlib.suppress(subprocess.SubprocessError, FileNotFoundError):
                if not pod["metadata"].get("deletionTimestamp") and container(pod) is not None:
                    return pod
        return None

    def away(self) -> None:
        """The time for which something is gone: the fault itself, not a wait for its effect."""
        time.sleep(self.dice.uniform(*AWAY_SECONDS))

    def a_node(self) -> str:
        nodes = sorted(node["metadata"]["name"] for node in self.release.list("nodes"))
        return self.dice.choice(nodes)


def pod_deleted(scene: Scene) -> None:
    pods = scene.namespace.pods(scene.job)
    if pods:
        name = scene.dice.choice(pods)["metadata"]["name"]
        scene.namespace.run("delete", "pod", name, "--wait=false", "--ignore-not-found")


def pod_deleted_by_force(scene: Scene) -> None:
    pods = scene.namespace.pods(scene.job)
    if pods:
        name = scene.dice.choice(pods)["metadata"]["name"]
        scene.namespace.run(
            *("delete", "pod", name, "--grace-period=0", "--force", "--ignore-not-found")
        )


def container_killed(scene: Scene) -> None:
    pod = scene.running()
    found = container(pod) if pod else None
    if found is not None:
        with contextlib.suppress(ProcessLookupError):
            found.kill()


def trainer_killed(scene: Scene) -> None:
    pod = scene.running()
    if pod is not None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, AssertionError):
            kill_trainer(pod)


def node_stopped(scene: Scene) -> None:
    with node_down(scene.release, scene.a_node()):
        scene.away()


def kubelet_stopped(scene: Scene) -> None:
    """The containers run on, but nobody reports them or starts others."""
    with _daemon_down(scene.release, f"kubelet{scene.a_node().removeprefix('node')}"):
        scene.away()
    for node in scene.release.list("nodes"):
        name = node["metadata"]["name"]
        wait_until(f"{name} is ready", lambda name=name: node_ready(scene.release, name))


def network_cut(scene: Scene) -> None:
    """No packet of one pod arrives anywhere, nor any at it."""
    pod = scene.running()
    found = container(pod) if pod else None
    if found is None:
        return
    index = _read(f"/proc/{found.pid}/root/sys/class/net/eth0/iflink")
    link = _host_link(index)
    if not link:
        return
    _ip("link", "set", link, "down")
    try:
        scene.away()
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # The pod may have gone.
            _ip("link", "set", link, "up")


def operator_killed(scene: Scene) -> None:
    kill_operator(scene.release, "at random")


def api_server_restarted(scene: Scene) -> None:
    with _daemon_down(scene.release, "apiserver"):
        scene.away()
    wait_until("the API server answers", lambda: _answers(scene.release))


FAULTS: dict[str, tuple[Callable[[Scene], None], int]] = {
    "pod deleted": (pod_deleted, 6),
    "pod deleted by force": (pod_deleted_by_force, 3),
    "container killed": (container_killed, 6),
    "trainer killed": (trainer_killed, 6),
    "node stopped": (node_stopped, 2),
    "kubelet stopped": (kubelet_stopped, 2),
    "network cut": (network_cut, 4),
    "operator killed": (operator_killed, 2),
    "API server restarted": (api_server_restarted, 1),
}
"""Each with its weight: those that cost the machine a minute come less often."""


def drawn(seed: int, count: int) -> list[str]:
    """So many faults: each kind once, as far as they go, then by weight. The same for a seed."""
    dice = random.Random(seed)
    names = list(FAULTS)
    dice.shuffle(names)
    weights = [weight for _, weight in FAULTS.values()]
    rest = dice.choices(list(FAULTS), weights, k=max(0, count - len(names)))
    return [*names, *rest][:count]


def _answers(release: Kubectl) -> bool:
    return not release.run("get", "nodes", check=False).returncode


@contextlib.contextmanager
def _daemon_down(release: Kubectl, name: str) -> Iterator[None]:
    """One of the rig's daemons is killed, and started again as it was."""
    del release
    file = RUN / "pid" / name
    pid = int(file.read_text())
    command = [
        part.decode() for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    ]
    namespace = f"/proc/{pid}/ns/mnt"
    held = os.open(namespace, os.O_RDONLY)  # A kubelet's mounts outlive it, in its containerd.
    try:
        os.kill(pid, signal.SIGKILL)
        wait_until(f"{name} has ended", lambda: not _alive(pid))
        yield
    finally:
        log = str(RUN / "log" / f"{name}.log")
        # By a shell, for it is to outlive this process, which must not wait for it.
        begun = subprocess.run(
            [
                *("sh", "-c", 'setsid "$@" >>"$0" 2>&1 </dev/null & echo $!', log),
                *("nsenter", f"--mount=/proc/self/fd/{held}", *command),
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[held],
            timeout=CALL_SECONDS,
        )
        file.write_text(begun.stdout)
        os.close(held)


def _alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text().strip()
    return ""


def _host_link(index: str) -> str:
    """The name of this machine's interface with this number; empty where there is none."""
    for folder in Path("/sys/class/net").iterdir():
        if index and _read(str(folder / "ifindex")) == index:
            return folder.name
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=CALL_SECONDS)
