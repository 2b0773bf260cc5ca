"""Ways in which a job is stuck or fails, made on a real cluster: `kubectl get`, `kubectl describe`,
`shardwise describe` and `shardwise explain` each name the cause and the remedy.

Jobs that come into trouble by themselves are applied together, each in a namespace of its own, and
one `kubectl get --watch` notes whatever its columns say of them, however shortly.
tests/unit/cli/test_cli_troubles.py has the same table without a cluster, and more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import slow
from jobs import job
from kubectl import WAIT_SECONDS, Kubectl, wait_until
from nodes import node_down, spare_node
from operators import on_rig
from volumes import claim

NAME = "job"
NODE_GONE_SECONDS = 360.0
CODE = {
    "raises": """
        def task():
            raise ValueError("the table of prices is empty")
    """,
    "diverges": """
        def loss(model, batch):
            return plain.loss(model, batch) * float("nan")
    """,
    "eats": """
        hog = []

        def loss(model, batch):
            hog.append(torch.ones(64 * 2**20))
            return plain.loss(model, batch)
    """,
    "stands": """
        calls = []

        def loss(model, batch):
            calls.append(1)
            if len(calls) > 20:
                time.sleep(3600)
            return plain.loss(model, batch)
    """,
    "dies": """
        def loss(model, batch):
            os._exit(3)
    """,
}
"""Modules for a job's ConfigMap; `loss` stands for the task of the digits with another loss."""
PRELUDE = """
import dataclasses, os, time, torch
from shardwise.examples import digits

plain = digits.task()

def task():
    return dataclasses.replace(plain, loss=loss)
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A job, what is done to it, and what must be said of it."""

    state: str
    reason: str
    """As the columns of `kubectl get -o wide` have them, at some time."""
    cause: str
    remedy: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the spec."""
    code: str = ""
    """A name in CODE."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[Kubectl], None] | None = None
    """What is made in the namespace first."""
    around: Callable[[Kubectl, Kubectl, Path], AbstractContextManager[object]] | None = None
    """The trouble, where it must be made by hand: given the release, the namespace and a folder, it
    applies the job itself."""
    seconds: float = WAIT_SECONDS


def limited(**limits: str) -> dict[str, Any]:
    return {"containers": [{"name": "trainer", "resources": {"limits": limits}}]}


def greedy() -> dict[str, Any]:
    container = {"name": "trainer", "resources": {"requests": {"memory": "900Gi"}}}
    return {"template": {"spec": {"containers": [container]}}}


def quota(namespace: Kubectl, pods: int) -> None:
    """From now on the namespace takes no more pods than that."""
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "tight"},
            "spec": {"hard": {"pods": str(pods)}},
        }
    )
    wait_until(
        "the quota is in force",
        lambda: ((namespace.get("resourcequota", "tight") or {}).get("status") or {}).get("hard"),
    )


@contextmanager
def below_min(release: Kubectl, namespace: Kubectl, folder: Path) -> Iterator[None]:
    slow.start(namespace, NAME, workers={"replicas": 2, "min": 2})
    slow.trains_on(namespace, NAME, 2, {}, "both train")
    quota(namespace, 1)
    namespace.run("delete", "pod", f"{NAME}-1", "--wait=false")
    yield


@contextmanager
def node_gone(release: Kubectl, namespace: Kubectl, folder: Path) -> Iterator[None]:
    on_rig(release)
    slow.start(namespace, NAME, workers={"min": 1})
    slow.trains_on(namespace, NAME, 4, {}, "all train")
    with node_down(release, spare_node(release)):
        yield


def volume(mode: int) -> Callable[..., AbstractContextManager[None]]:
    """A job with checkpoints on a volume whose folder has that mode; it belongs to root."""

    @contextmanager
    def around(release: Kubectl, namespace: Kubectl, folder: Path) -> Iterator[None]:
        kept = {"persistentVolumeClaim": {"claimName": "kept"}}
        with claim(namespace, "kept", folder / "kept") as place:
            place.chmod(mode)
            checkpoint = {"everySteps": 5, "volume": kept}
            slow.start(namespace, NAME, workers={"replicas": 1}, checkpoint=checkpoint)
            yield

    return around


@contextmanager
def without_rights(release: Kubectl, namespace: Kubectl, folder: Path) -> Iterator[None]:
    """The operator may create no pods."""
    role = release.get("clusterrole", "shardwise-jobs")
    assert role is not None, "the chart's own roles; see rbac.create"
    (place,) = (
        number
        for number, rule in enumerate(role["rules"])
        if "pods" in rule["resources"] and "create" in rule["verbs"]
    )
    verbs = role["rules"][place]["verbs"]

    def allow(allowed: list[str]) -> None:
        change = [{"op": "replace", "path": f"/rules/{place}/verbs", "value": allowed}]
        patch = f"--patch={json.dumps(change)}"
        release.run("patch", "clusterrole", "shardwise-jobs", "--type=json", patch)
        may = "yes" if "create" in allowed else "no"
        account = f"--as=system:serviceaccount:{release.namespace}:shardwise"
        wait_until(
            f"whether it may create pods: {may}",
            lambda: (
                may
                == namespace.run(
                    "auth", "can-i", "create", "pods", account, check=False
                ).stdout.strip()
            ),
        )

    allow([verb for verb in verbs if verb != "create"])
    try:
        namespace.apply(job(NAME))
        yield
    finally:
        allow(verbs)


CASES = {
    "unschedulable": Case(
        spec=greedy(),
        state="Waiting",
        reason="Unschedulable",
        cause="Insufficient memory",
        remedy="free or add nodes",
    ),
    "image": Case(
        trainer={"image": "registry.invalid/none:1"},
        state="Waiting",
        reason="ImagePullFailed",
        cause="registry.invalid/none:1",
        remedy="check spec.trainer.image",
    ),
    "quota": Case(
        before=lambda namespace: quota(namespace, 0),
        state="Waiting",
        reason="QuotaExceeded",
        cause="exceeded quota",
        remedy="raise the namespace's quota",
    ),
    "ConfigMap missing": Case(
        trainer={"entrypoint": "train:task", "codeFrom": {"configMap": "absent"}},
        state="Waiting",
        reason="ConfigMapMissing",
        cause="there is no ConfigMap absent",
        remedy="kubectl create configmap absent",
    ),
    "user exception": Case(
        code="raises",
        state="Failed",
        reason="UserCodeFailed",
        cause="ValueError: the table of prices is empty",
        remedy='raise ValueError("the table of prices is empty")',  # the line, to be mended
    ),
    "NaN loss": Case(
        code="diverges",
        state="Failed",
        reason="NotFinite",
        cause="the loss of step 1 is nan",
        remedy="lower the learning rate",
    ),
    "OOM": Case(
        code="eats",
        spec={"template": {"spec": limited(memory="700Mi")}},
        state="Waiting",
        reason="OutOfMemory",
        cause="used more memory than its limit",
        remedy="raise resources.limits.memory",
    ),
    "stalled": Case(
        code="stands",
        spec={"stallTimeoutSeconds": 10},
        state="Running",
        reason="Stalled",
        cause="spec.stallTimeoutSeconds (10)",
        remedy="raise the limit",
    ),
    "deadline of the start": Case(
        spec={"startupDeadlineSeconds": 5, **greedy()},
        state="Failed",
        reason="StartupDeadlineExceeded",
        cause="spec.startupDeadlineSeconds (5)",
        remedy="free or add nodes",
    ),
    "deadline of the training": Case(
        trainer={"epochs": 1_000_000},
        spec={"activeDeadlineSeconds": 5},
        state="Failed",
        reason="ActiveDeadlineExceeded",
        cause="spec.activeDeadlineSeconds (5)",
        remedy="raise it",
    ),
    "suspended": Case(
        spec={"suspend": True},
        state="Suspended",
        reason="Suspended",
        cause="spec.suspend is true",
        remedy=f"shardwise resume {NAME}",
    ),
    "budget spent": Case(
        code="dies",
        spec={"restartPolicy": {"maxRestarts": 0}},
        state="Failed",
        reason="RestartBudgetExceeded",
        cause="spec.restartPolicy.maxRestarts (0)",
        remedy="see its log",
    ),
    "below min": Case(
        around=below_min,
        state="Waiting",
        reason="QuotaExceeded",
        cause="at least 2 are needed",
        remedy="lower spec.workers.min",
    ),
    "checkpoints that cannot be written": Case(
        around=volume(0o555),
        state="Running",
        reason="Training",
        cause="Permission denied",
        remedy="give group 65532 access",
    ),
    "checkpoints that cannot be read": Case(
        around=volume(0o000),
        state="Failed",
        reason="CheckpointFailed",
        cause="cannot read /checkpoint",
        remedy="give group 65532 access",
    ),
    "node gone": Case(
        around=node_gone,
        state="Running",
        reason="Training",
        cause="is on a node that does not answer any more",
        remedy="another pod takes its place",
        seconds=NODE_GONE_SECONDS,
    ),
    # The last one: for a while no job of the whole cluster gets pods.
    "RBAC missing": Case(
        around=without_rights,
        state="Waiting",
        reason="Forbidden",
        cause="pods is forbidden",
        remedy="grant the operator the right",
    ),
}


def begin(namespace: Kubectl, case: Case) -> None:
    """Applies the case's job."""
    if case.before:
        case.before(namespace)
    trainer: dict[str, Any] = dict(case.trainer)
    if case.code:
        text = textwrap.dedent(CODE[case.code])
        code = text if "def task" in text else PRELUDE + text
        content = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}}
        namespace.apply({**content, "data": {"mine.py": code}})
        trainer |= {"entrypoint": "mine:task", "codeFrom": {"configMap": "code"}}
    manifest = job(NAME, workers=1, **trainer)
    manifest["spec"] |= case.spec
    namespace.apply(manifest)


class Scene:
    """The namespaces of the cases, and what `kubectl get --watch` has said of their jobs."""

    def __init__(self, release: Kubectl, lines: Path) -> None:
        self._lines, self._release = lines, release
        mark = uuid.uuid4().hex[:6]
        self.places = {
            name: release.within(f"trouble-{number}-{mark}") for number, name in enumerate(CASES)
        }

    def said(self, name: str) -> list[list[str]]:
        """The rows about a case's job so far, as words."""
        rows = map(str.split, self._lines.read_text().splitlines())
        place = self.places[name].namespace
        return [row for row in rows if row[:2] == [place, NAME]]


@pytest.fixture(scope="module")
def scene(release: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    lines = tmp_path_factory.mktemp("troubles") / "watched"
    scene = Scene(release, lines)
    for place in scene.places.values():
        release.run("create", "namespace", place.namespace)
    flags = ("--all-namespaces", "--watch", "--output=wide", "--no-headers")
    with lines.open("w") as out:
        watch = subprocess.Popen(
            release.command("get", "optjob", *flags), stdout=out, env=release.environment()
        )
    try:
        for name, case in CASES.items():
            if case.around is None:
                begin(scene.places[name], case)
        yield scene
    finally:
        watch.terminate()
        watch.wait(30)
        for place in scene.places.values():
            release.run("delete", "namespace", place.namespace, "--wait=false")


def shardwise(namespace: Kubectl, verb: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "shardwise.cli.main", verb, NAME, "-n", namespace.namespace],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "KUBECONFIG": str(namespace.kubeconfig), "COLUMNS": "5000"},
        check=True,
    )
    return done.stdout


TELLERS: Mapping[str, Callable[[Kubectl], str]] = {
    "kubectl describe": lambda namespace: namespace.run("describe", "optjob", NAME).stdout,
    "shardwise describe": lambda namespace: shardwise(namespace, "describe"),
    "shardwise explain": lambda namespace: shardwise(namespace, "explain"),
}


@pytest.mark.parametrize("name", CASES)
def test_cause_and_remedy_are_named(
    name: str, scene: Scene, release: Kubectl, tmp_path: Path
) -> None:
    case, place = CASES[name], scene.places[name]
    with case.around(release, place, tmp_path) if case.around else nullcontext():
        wait_until(
            f"kubectl get shows {case.state} and {case.reason}",
            lambda: any(
                row[2] == case.state and row[-1] == case.reason for row in scene.said(name)
            ),
            seconds=case.seconds,
        )
        for teller, tell in TELLERS.items():
            wait_until(
                f"{teller} names {case.cause!r} and {case.remedy!r}",
                # What it says, where it lacks a word, is for the message of a failure.
                lambda tell=tell: _Said(tell(place), case),  # type: ignore[misc]
                seconds=case.seconds,
            )


class _Said:
    """What was said; true where it names cause and remedy."""

    def __init__(self, text: str, case: Case) -> None:
        self._text, self._case = text, case

    def __bool__(self) -> bool:
        words = " ".join(self._text.split())
        return self._case.cause in words and self._case.remedy in words

    def __repr__(self) -> str:
        return self._text
