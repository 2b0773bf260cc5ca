"""A digits job that takes its time until it is told to hurry, and what its status tells.

Slow steps leave room for whatever a test does to the workers, however slow the machine is, and put
little load on it. The weights are those of plain digits: only time is added.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from containers import Container, container, empty_dir
from jobs import KIND, Job, job, wait_job
from kubectl import Kubectl, wait_until
from progress import say

EPOCHS = 60
DETECTION_MILLISECONDS = 5000
"""Nodes, workers and whatever else runs here share one machine's cores: a worker that is slow for a
second is not to be counted as lost. A death shows at once, whatever this is."""
CODE = """
import dataclasses
import pathlib
import time

from shardwise.examples import digits

OPEN = pathlib.Path("/output/open")
HURRY = pathlib.Path("/output/hurry")


def task(held: int = 0):
    while held and not OPEN.exists():
        time.sleep(0.05)
    plain = digits.task()

    def slow(model, batch):
        if not HURRY.exists():
            time.sleep(0.25)
        return plain.loss(model, batch)

    return dataclasses.replace(plain, loss=slow)
"""


def plain_job(name: str, workers: int = 4) -> Job:
    """What local mode is given: the same job without the waiting."""
    return job(name, workers=workers, epochs=EPOCHS)


def start(namespace: Kubectl, name: str, held: bool = False, **spec: Any) -> None:
    """Applies the slow job; `spec` changes its spec, `workers` its spec.workers.

    Args:
        held: its workers load no task until they are let in.
    """
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "slow"}}
    namespace.apply({**code, "data": {"slow_digits.py": CODE}})
    manifest = plain_job(name)
    manifest["spec"]["trainer"] |= {
        "entrypoint": "slow_digits:task",
        "codeFrom": {"configMap": "slow"},
        "parameters": {"held": int(held)},
    }
    manifest["spec"]["workers"] |= {
        "detectionMilliseconds": DETECTION_MILLISECONDS,
        **spec.pop("workers", {}),
    }
    manifest["spec"] |= spec
    namespace.apply(manifest)


def let_in(namespace: Kubectl, name: str) -> None:
    """Its workers, which were held, load their task."""
    _touch(namespace, name, "open")


def hurry(namespace: Kubectl, name: str) -> None:
    """From now on its steps take as long as they take."""
    _touch(namespace, name, "hurry")


def _touch(namespace: Kubectl, name: str, file: str) -> None:
    for pod in namespace.pods(name):
        folder = empty_dir(pod, "output")
        if folder.exists():
            (folder / file).touch()


def gets_on(namespace: Kubectl, name: str, steps: int = 1) -> Job:
    """The job once its status tells of so many steps beyond that of now."""
    aim = step(namespace.get(KIND, name) or {}) + steps
    return wait_job(namespace, name, f"step {aim} is told of", lambda now: step(now) >= aim)


def members(found: Job) -> int:
    return int(found.get("status", {}).get("workers", {}).get("members") or 0)


def generation(found: Job) -> int:
    return int(found.get("status", {}).get("workers", {}).get("generation") or 0)


def step(found: Job) -> int:
    return int(found.get("status", {}).get("progress", {}).get("step") or 0)


def causes(found: Job) -> dict[str, int]:
    """How often the group changed, by cause."""
    counts = found.get("status", {}).get("recoveriesByCause", [])
    return {entry["cause"]: entry["count"] for entry in counts}


def trains_on(
    namespace: Kubectl,
    name: str,
    workers: int,
    counts: dict[str, int],
    what: str = "",
    above: int = -1,
) -> Job:
    """The job once so many workers train, past the step of now, with at least these counts.

    Args:
        above: the generation that is over.
    """
    before = step(namespace.get(KIND, name) or {})
    found = wait_job(
        namespace,
        name,
        f"{workers} workers train past step {before}, with {counts}",
        lambda now: (
            members(now) == workers
            and generation(now) > above
            and step(now) > before
            and all(causes(now).get(cause, 0) >= count for cause, count in counts.items())
        ),
    )
    if what:
        tell(what, found)
    return found


def tell(what: str, found: Job) -> None:
    status = found["status"]
    last = status.get("lastRecovery", {})
    say(
        f"{what}: step {step(found)}, generation {status['workers']['generation']}, "
        f"{causes(found)}, lost steps {status.get('lostSteps', 0)}; last recovery "
        f"{last.get('worker')} {last.get('cause')} {last.get('seconds')} s"
    )


def worker(namespace: Kubectl, name: str, index: int) -> dict[str, Any]:
    pod = namespace.get("pod", f"{name}-{index}")
    assert pod is not None
    return pod


def first_process(pod: dict[str, Any]) -> Container:
    found = container(pod)
    assert found is not None, f"pod {pod['metadata']['name']} has no running container"
    return found


def kill_trainer(pod: dict[str, Any]) -> None:
    """SIGKILL to the process that trains; the container's first process begins it anew."""
    pid = first_process(pod).pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    (child,) = wait_until("its trainer is there", lambda: children.read_text().split())
    os.kill(int(child), signal.SIGKILL)
