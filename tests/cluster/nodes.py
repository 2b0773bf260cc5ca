"""The rig's nodes, which can be cut off as by a power cut and come back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubectl import Kubectl, wait_until
from operators import OPERATOR, running_operator

RIG = Path(__file__).parent / "rig"
RIG_SECONDS = 120


def spare_node(release: Kubectl) -> str:
    """A node on which no operator runs."""
    running_operator(release)
    taken = {pod["spec"].get("nodeName") for pod in release.list("pods", OPERATOR)}
    names = [node["metadata"]["name"] for node in release.list("nodes")]
    return next(name for name in names if name not in taken)


def node_ready(release: Kubectl, name: str) -> bool:
    node = release.get("node", name) or {}
    return any(
        entry["type"] == "Ready" and entry["status"] == "True"
        for entry in node.get("status", {}).get("conditions", [])
    ) and not node["spec"].get("taints")


@contextmanager
def node_down(release: Kubectl, name: str) -> Iterator[None]:
    """A power cut, and the node's return."""
    number = name.removeprefix("node")

    def rig(verb: str) -> None:
        command = [str(RIG / "cluster"), verb, number]
        subprocess.run(command, check=True, capture_output=True, timeout=RIG_SECONDS)

    rig("stop-node")
    try:
        yield
    finally:
        rig("start-node")
        wait_until(f"{name} is back", lambda: node_ready(release, name))


def on_node(namespace: Kubectl, name: str, node: str) -> list[str]:
    pods = namespace.pods(name)
    return [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node]
