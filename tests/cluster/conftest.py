"""Fixtures of the cluster tests: a cluster, the images on its nodes, the chart installed.

`KUBECONFIG` set beforehand uses that cluster (kind, k3d) and leaves it as it was found; there,
SHARDWISE_OPERATOR_IMAGE and SHARDWISE_TRAINER_IMAGE name images that its nodes can get. Without it
the rig brings up two nodes of its own, or takes those that it left running.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import uuid
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
from progress import call, say  # noqa: E402

RUN = Path("/run/kube-lab")
SYSTEM = "shardwise-system"
TEST_SECONDS = 900
UP_SECONDS = 1800
"""For the cluster; with Kubernetes to be built, about seven minutes of a quiet machine."""
FIRST_SECONDS = 5400
"""The first test pays for the cluster and the images."""
_facts: dict[str, str] = {}


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


def _rig(*arguments: str) -> None:
    call([str(RIG / "cluster"), *arguments], UP_SECONDS)


def _answers(kubeconfig: Path) -> bool:
    return not Kubectl(kubeconfig).run("get", "nodes", check=False, seconds=20).returncode


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kubectl]:
    """A cluster of at least two nodes."""
    given = os.environ.get("KUBECONFIG")
    running = RUN / "admin.kubeconfig"
    started = False
    if given:
        kubeconfig = Path(given)
    elif running.exists() and _answers(running):
        kubeconfig = running
    elif os.geteuid() or not Path("/etc/debian_version").exists() or platform.system() != "Linux":
        pytest.skip("the rig needs root on Debian; or set KUBECONFIG to a cluster")
    else:
        before = time.monotonic()
        say("starting two nodes")
        _rig("down")
        _rig("up", "2")
        started, kubeconfig = True, running
        _facts["start"] = f"{time.monotonic() - before:.0f} s"
    kubectl = Kubectl(kubeconfig)
    nodes = kubectl.list("nodes")
    version = nodes[0]["status"]["nodeInfo"]["kubeletVersion"]
    _facts["cluster"] = f"Kubernetes {version}, {len(nodes)} nodes"
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
def namespace(release: Kubectl) -> Iterator[Kubectl]:
    """A client in a namespace of the test's own, removed after it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    release.run("create", "namespace", name)
    yield release.within(name)
    release.run("delete", "namespace", name, "--wait=false")
