"""The rig itself, where the machine is not as it was when the rig was written."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import POD_ADDRESSES
from images import Image
from kubectl import Kubectl
from operators import on_rig, running_operator

RIG = Path(__file__).resolve().parent / "rig"
SECONDS = 300
NO_SERVICE = "10.96.255.254"
"""An address of the Services' range that no Service has."""
POD = POD_ADDRESSES.replace("0.0/16", "1.200")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "STORAGE_DRIVER": "overlay", **environment},
        check=False,
    )


@pytest.fixture
def old_image(cluster: Kubectl) -> Iterator[Image]:
    """An image of nothing; a container of it stands for a build that was interrupted."""
    on_rig(cluster)
    image = Image(f"localhost/rig-test-{uuid.uuid4().hex[:8]}", "old")
    container = run("buildah", "from", "scratch").stdout.strip()
    assert run("buildah", "commit", container, str(image)).returncode == 0
    run("buildah", "rm", container)
    try:
        yield image
    finally:
        run("buildah", "rmi", "--force", str(image))


def test_the_control_plane_starts_where_there_is_nothing_but_loopback(
    cluster: Kubectl, tmp_path: Path
) -> None:
    on_rig(cluster)
    script = (
        '"$0" up 0 && ip -4 -brief address show lo && "$0" down && ip -4 -brief address show lo'
    )
    alone = ("unshare", "--net", "bash", "-c", script, str(RIG / "cluster"))
    done = run(*alone, KUBE_LAB_RUN=str(tmp_path / "run"), KUBE_LAB_IP="")
    assert done.returncode == 0, done.stderr
    up, down = (line for line in done.stdout.splitlines() if line.startswith("lo"))
    assert "10.77.0.1/32" in up
    assert "10.77.0.1/32" not in down, "it takes away what it added"


@pytest.mark.parametrize(("address", "why"), [("127.0.0.1", "loopback"), ("192.0.2.77", "is no")])
def test_an_address_with_which_it_could_never_start_is_refused_at_once(
    cluster: Kubectl, tmp_path: Path, address: str, why: str
) -> None:
    on_rig(cluster)
    command = ("unshare", "--net", str(RIG / "cluster"), "up", "0")
    done = run(*command, KUBE_LAB_RUN=str(tmp_path / "run"), KUBE_LAB_IP=address)
    assert done.returncode == 2
    assert f"KUBE_LAB_IP={address}" in done.stderr and why in done.stderr


def test_a_packet_to_a_service_address_never_leaves_the_machine(release: Kubectl) -> None:
    on_rig(release)
    for sender in ((), ("from", POD, "iif", "lab1")):
        route = run("ip", "route", "get", NO_SERVICE, *sender).stdout
        assert "dev lo" in route, f"{sender}: {route}"

    def dropped() -> int:
        rules = run("iptables", "--wait", "10", "-nvxL", "FORWARD").stdout.splitlines()
        (rule,) = (line for line in rules if "kube-lab" in line)
        return int(rule.split()[0])

    before = dropped()
    connect = f"import socket; socket.create_connection(('{NO_SERVICE}', 80), timeout=3)"
    operator, _ = running_operator(release)
    said = release.run("exec", operator, "--", "python3", "-c", connect, check=False)
    assert "timed out" in said.stderr, said
    assert dropped() > before + 1, "repetitions too: none became a connection that is left alone"


def test_an_interrupted_build_of_an_image_does_not_fail_the_next(old_image: Image) -> None:
    left = run("buildah", "from", str(old_image))
    assert left.returncode == 0, left.stderr
    done = run(str(RIG / "image"), "prune", old_image.repository, "new")
    assert done.returncode == 0, done.stderr
    assert run(str(RIG / "image"), "has", str(old_image)).returncode != 0
    containers = run("buildah", "containers", "--format", "{{.ContainerName}}").stdout.split()
    assert left.stdout.strip() not in containers
