"""The operator of the cluster tests, as something that can be killed and sent away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from containers import RUN, Container, container
from kubectl import Kubectl, wait_until

OPERATOR = "app.kubernetes.io/component=operator"
DEPLOYMENT = "shardwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL that has ended a running operator."""

    point: str
    """Where in a job's life."""
    container: Container
    ready_after: float = 0.0
    """Seconds until another operator was ready."""


def on_rig(release: Kubectl) -> None:
    """Skips the test on a cluster of yours."""
    if not release.kubeconfig.is_relative_to(RUN):
        pytest.skip("a signal to a container's process: only on the rig's own nodes")


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return not pod["metadata"].get("deletionTimestamp") and any(
        entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions
    )


def running_operator(release: Kubectl) -> tuple[str, Container]:
    """The operator's pod and its container, once it is ready and the only one."""

    def probe() -> tuple[str, Container] | None:
        pods = release.list("pods", OPERATOR)
        if len(pods) != 1 or not is_ready(pods[0]):
            return None
        found = container(pods[0])
        return (pods[0]["metadata"]["name"], found) if found else None

    return wait_until("one operator runs and is ready", probe)


def kill_operator(release: Kubectl, point: str) -> Kill:
    """SIGKILL to the running, ready operator; returns once another one is.

    The pod goes too: a container that is restarted in place waits longer each time.
    """
    name, victim = running_operator(release)
    victim.kill()
    before = time.monotonic()
    wait_until(f"process {victim.pid} is gone", lambda: not victim.alive())
    release.run("delete", "pod", name, "--grace-period=0", "--force")
    _, successor = running_operator(release)
    assert successor.identity != victim.identity
    return Kill(point=point, container=victim, ready_after=time.monotonic() - before)


def operator_ready(release: Kubectl) -> bool:
    found = release.get("deployment", DEPLOYMENT) or {}
    return bool(found.get("status", {}).get("readyReplicas"))


@contextmanager
def operator_away(release: Kubectl) -> Iterator[None]:
    release.run("scale", "deployment", DEPLOYMENT, "--replicas=0")
    wait_until("the operator is gone", lambda: not release.list("pods", OPERATOR))
    try:
        yield
    finally:
        release.run("scale", "deployment", DEPLOYMENT, "--replicas=1")
        wait_until("the operator is back", lambda: operator_ready(release))
