"""Fixtures of the cluster tests: a cluster, the images on its nodes, the chart installed.

`KUBECONFIG` set beforehand uses that cluster (kind, k3d) and leaves it as it was found; there,
SHARDWISE_OPERATOR_IMAGE and SHARDWISE_TRAINER_IMAGE name images that its nodes can get. Without it
the rig brings up two nodes of its own, or takes those that it left running. Which Kubernetes they
run is said in rig/servers.py; KUBE_LAB_NETWORK_POLICIES names a program that makes them enforce
NetworkPolicies (called with `start` and `stop`).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
RIG = HERE / "rig"
sys.path[:0] = [str(RIG), str(HERE)]

import progress  # noqa: E402
import slow  # noqa: E402
from images import Image, build, load  # noqa: E402
from jobs import local_result  # noqa: E402
from kubectl import Kubectl  # noqa: E402
from operators import on_rig  # noqa: E402
from progress import call, say  # noqa: E402
from releases import PLAIN_METRICS  # noqa: E402
from tools import tool  # noqa: E402

RUN = Path("/run/kube-lab")
SYSTEM = "shardwise-system"
TEST_SECONDS = 900
UP_SECONDS = 1800
"""For the cluster; with v1.20 to be built, about seven minutes of a quiet machine."""
ENFORCER = "KUBE_LAB_NETWORK_POLICIES"
ENFORCER_SECONDS = 60
FIRST_SECONDS = 5400
"""The first test pays for the cluster and the images."""
_facts: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "every_version: also run on older versions of Kubernetes (see scripts/test.sh)"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    progress.capture.append(config.pluginmanager.getplugin("capturemanager"))
    for item in _ours(items):
        item.add_marker(pytest.mark.cluster)
        item.add_marker(pytest.mark.timeout(TEST_SECONDS))
    yield
    for item in _ours(items)[:1]:  # of those that are left
        item.add_marker(pytest.mark.timeout(FIRST_SECONDS), append=False)


def _ours(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if item.path.is_relative_to(HERE)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _facts:
        return
    passed = [r for r in terminalreporter.stats.get("passed", []) if "tests/cluster" in r.nodeid]
    terminalreporter.section("real cluster")
    terminalreporter.line(f"{len(passed)} tests passed on a real cluster")
    for name, value in _facts.items():
        terminalreporter.line(f"{name}: {value}")


def _rig(*arguments: str) -> str:
    return call([str(RIG / "cluster"), *arguments], UP_SECONDS)


def _running(kubeconfig: Path) -> bool:
    """Whether the rig's nodes are there, of the Kubernetes that is asked for."""
    if not kubeconfig.exists() or not _answers(kubeconfig):
        return False
    printed = call([sys.executable, str(RIG / "servers.py")], UP_SECONDS)
    return (RUN / "kubelet").resolve() == Path(printed.split()[-1], "kubelet").resolve()


def _answers(kubeconfig: Path) -> bool:
    return not Kubectl(kubeconfig).run("get", "nodes", check=False, seconds=20).returncode


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kubectl]:
    """A cluster of at least two nodes, or of one where KUBE_LAB_NODES=1 says so."""
    given = os.environ.get("KUBECONFIG")
    running = RUN / "admin.kubeconfig"
    started = False
    if given:
        kubeconfig = Path(given)
    elif _running(running):
        kubeconfig = running
    elif os.geteuid() or not Path("/etc/debian_version").exists() or platform.system() != "Linux":
        pytest.skip("the rig needs root on Debian; or set KUBECONFIG to a cluster")
    else:
        before = time.monotonic()
        nodes = os.environ.get("KUBE_LAB_NODES", "2")
        say(f"starting nodes: {nodes}")
        _rig("down")
        for line in _rig("up", nodes).splitlines():
            if line.startswith("servers: "):
                _facts["servers"] = line.removeprefix("servers: ")
        started, kubeconfig = True, running
        _facts["start"] = f"{time.monotonic() - before:.0f} s"
    kubectl = Kubectl(kubeconfig)
    version = json.loads(kubectl.run("get", "--raw", "/version").stdout)["gitVersion"]
    _facts["cluster"] = f"Kubernetes {version}, {len(kubectl.list('nodes'))} nodes"
    say(_facts["cluster"])
    yield kubectl
    if started and not os.environ.get("SHARDWISE_KEEP_CLUSTER"):
        say("stopping the nodes")
        _rig("down")


@pytest.fixture(scope="session")
def images(cluster: Kubectl) -> dict[str, Image]:
    """The images by target (operator, trainer), where the cluster's nodes can get them."""
    named = {t: os.environ.get(f"SHARDWISE_{t.upper()}_IMAGE") for t in ("operator", "trainer")}
    if all(named.values()):
        return {target: Image.parse(str(name)) for target, name in named.items()}
    if not cluster.kubeconfig.is_relative_to(RUN):
        pytest.skip("set SHARDWISE_OPERATOR_IMAGE and SHARDWISE_TRAINER_IMAGE for this cluster")
    before = time.monotonic()
    images = build(say, call)
    for image in images.values():
        load(image, RUN, say, call)
    _facts["images built and loaded"] = f"{time.monotonic() - before:.0f} s"
    return images


@pytest.fixture(scope="session")
def release(cluster: Kubectl, images: dict[str, Image]) -> Iterator[Kubectl]:
    """The chart, installed by helm with the built images; the client is in its namespace."""
    system = cluster.within(SYSTEM)
    say("installing the chart")
    before = time.monotonic()
    settings = [
        f"{target}.image.{part}={value}"
        for target, image in images.items()
        for part, value in (("repository", image.repository), ("tag", image.tag))
    ]
    system.helm(
        "upgrade",
        "--install",
        "shardwise",
        str(HERE.parents[1] / "charts" / "shardwise"),
        "--create-namespace",
        "--set-string",
        ",".join(settings),
        "--set",
        ",".join(PLAIN_METRICS),
        "--wait",
        "--timeout=180s",
    )
    _facts["chart installed"] = f"{time.monotonic() - before:.0f} s"
    yield system
    for pod in system.list("pods"):
        statuses = pod["status"].get("containerStatuses", [])
        _facts[f"restarts of {pod['metadata']['name']}"] = str(
            sum(status["restartCount"] for status in statuses)
        )


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[str]]:
    """The weights' hash of a local run of the slow job's digits, to which nothing happens; it runs
    beside the first test that asks for it. On any number of workers it is the same."""

    def run() -> str:
        folder = tmp_path_factory.mktemp("undisturbed")
        return str(local_result(slow.plain_job("plain"), folder, workers=1)["weightsSha256"])

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


@pytest.fixture
def policed(release: Kubectl) -> Callable[[], AbstractContextManager[None]]:
    """Within its context, NetworkPolicies are enforced on the rig's nodes."""
    on_rig(release)
    program = os.environ.get(ENFORCER)
    if not program:
        _facts["NetworkPolicies"] = f"not enforced: {ENFORCER} names no program that does"
        pytest.skip(f"{ENFORCER} names no program that enforces NetworkPolicies on the rig")

    def enforcer(verb: str) -> None:
        environment = {**release.environment(), "KUBECTL": str(tool("kubectl"))}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # it leaves a daemon
        done = subprocess.run(
            [program, verb], env=environment, timeout=ENFORCER_SECONDS, check=False, **pipes
        )
        assert not done.returncode, f"{program} {verb} exits with {done.returncode}"

    @contextmanager
    def enforced() -> Iterator[None]:
        enforcer("start")
        try:
            _facts["NetworkPolicies"] = f"enforced by {program}"
            yield
        finally:
            enforcer("stop")

    return enforced


@pytest.fixture
def namespace(release: Kubectl) -> Iterator[Kubectl]:
    """A client in a namespace of the test's own, removed after it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    release.run("create", "namespace", name)
    yield release.within(name)
    release.run("delete", "namespace", name, "--wait=false")
