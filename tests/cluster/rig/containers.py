"""The processes behind the containers of the rig's nodes: this machine is every node of it.

Knows no Kubernetes beyond a pod's manifest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN = Path("/run/kube-lab")
POD_ADDRESSES = "10.88.0.0/16"
ESTABLISHED = "01"
CALL_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Container:
    """One running container, by its first process as this machine numbers it."""

    identity: str
    pid: int
    started: str
    """The process's start time: its number may be given to another after its end."""

    def alive(self) -> bool:
        return _started(self.pid) == self.started

    def kill(self) -> None:
        """SIGKILL to the first process; the kernel ends the others with it."""
        os.kill(self.pid, signal.SIGKILL)

    def connected(self, port: int) -> bool:
        """Whether it holds a TCP connection to this port of anybody."""
        for table in ("tcp", "tcp6"):
            lines = Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]
            for fields in (line.split() for line in lines):
                if fields[3] == ESTABLISHED and int(fields[2].rpartition(":")[2], 16) == port:
                    return True
        return False


def container(pod: dict[str, Any]) -> Container | None:
    """The pod's one container, where it runs on a node of the rig.

    Asks the node itself: the API server hears of a container a second or two later.
    """
    node = pod["spec"].get("nodeName")
    if not node:
        return None
    labels = {
        "io.kubernetes.pod.uid": pod["metadata"]["uid"],
        "io.cri-containerd.kind": "container",
    }
    chosen = ",".join(f'labels."{name}"=={value}' for name, value in labels.items())
    ours = _ctr(node, "containers", "ls", "--quiet", chosen).split()
    for line in _ctr(node, "tasks", "ls").splitlines():
        identity, number, state = [*line.split(), "", "", ""][:3]
        if identity in ours and state == "RUNNING":
            started = _started(int(number))
            return Container(identity, int(number), started) if started else None
    return None


def empty_dir(pod: dict[str, Any], volume: str) -> Path:
    """Where an emptyDir of the pod lies on this machine."""
    kubelet = RUN / pod["spec"]["nodeName"] / "kubelet"
    pods = kubelet / "pods" / pod["metadata"]["uid"]
    return pods / "volumes" / "kubernetes.io~empty-dir" / volume


@contextlib.contextmanager
def cut_off(port: int) -> Iterator[None]:
    """For a while nothing that pods send to this port of a Service arrives."""
    rule = ["PREROUTING", "-s", POD_ADDRESSES, "-p", "tcp", "--dport", str(port), "-j", "DROP"]
    _iptables("--insert", *rule)
    try:
        yield
    finally:
        _iptables("--delete", *rule)


def _iptables(*arguments: str) -> None:
    # The raw table comes before kube-proxy's translation of the Service's address.
    command = ["iptables", "--wait", "10", "--table", "raw", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=CALL_SECONDS)


def _ctr(node: str, *arguments: str) -> str:
    command = ["ctr", "--address", str(RUN / node / "containerd.sock"), "--namespace", "k8s.io"]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=CALL_SECONDS, check=True
    ).stdout


def _started(pid: int) -> str:
    """Empty where there is no such process, or only its remains."""
    try:
        # The command's name, in parentheses, may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
