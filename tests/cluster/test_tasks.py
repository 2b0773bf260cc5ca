"""Jobs with many tasks on the cluster: a pool over both nodes, which loses a trainer, a pod and the
operator in the middle, comes to what one worker of this machine comes to.

SHARDWISE_CHAOS=full makes it a hundred tasks on four workers, and twenty trainers that are killed.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import slow
import yaml
from jobs import KIND, LOCAL_SECONDS, Job, condition, ended, job, wait_ended, wait_job
from kubectl import Kubectl, wait_until
from operators import kill_operator, on_rig
from progress import say
from volumes import claim

NAME = "sweep"
FULL = os.environ.get("SHARDWISE_CHAOS") == "full"
WORKERS = 4 if FULL else 3
RATES = ["0.05", "0.1", "0.2", "0.3", "0.4"] if FULL else ["0.05", "0.1", "0.2"]
WIDTHS = [8 * n for n in range(1, 21)] if FULL else [16, 32, 48, 64]
KILLS, EVERY = (20, 4) if FULL else (1, 2)
"""Trainers that are killed, and how many tasks end between two of them."""
TASKS = {
    "sweep": {
        "parameters": [
            {"name": "learning_rate", "values": RATES},
            {"name": "hidden", "values": WIDTHS},
        ]
    },
    "objectives": [{"metric": "accuracy", "direction": "Maximize"}],
}
TOTAL = len(RATES) * len(WIDTHS)
EPOCHS = 20 if FULL else 60
END_SECONDS = 1200 if FULL else 600


def sweep(name: str, tasks: dict[str, Any], **trainer: Any) -> Job:
    manifest = job(name, workers=WORKERS, epochs=EPOCHS, evaluateEveryEpochs=20, **trainer)
    manifest["spec"]["tasks"] = tasks
    return manifest


def told(found: Job) -> dict[str, Any]:
    tasks: dict[str, Any] = found.get("status", {}).get("tasks", {})
    return tasks


def over(tasks: dict[str, Any]) -> int:
    return sum(int(tasks.get(key, 0)) for key in ("succeeded", "failed", "stopped"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[dict[str, str]]]:
    """The hash of each task's weights as one worker of this machine makes them, which nothing
    happens to; it runs beside the job."""
    folder = tmp_path_factory.mktemp("alone")

    def run() -> dict[str, str]:
        file = folder / "sweep.yaml"
        file.write_text(yaml.safe_dump(sweep(NAME, TASKS)))
        script = Path(sys.executable).parent / "shardwise"
        command = [str(script), "run", str(file), "--workers", "1", "--output", str(folder / "out")]
        subprocess.run(command, check=True, capture_output=True, timeout=LOCAL_SECONDS)
        result = json.loads((folder / "out" / "result.json").read_text())
        return {task["name"]: task["weightsSha256"] for task in result["tasks"]}

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


@pytest.fixture
def volume(namespace: Kubectl, tmp_path: Path) -> Iterator[Path]:
    with claim(namespace, "output", tmp_path / "volume") as folder:
        yield folder


def wait_over(namespace: Kubectl, name: str, count: int) -> Job:
    """The job once so many of its tasks have ended, and it has not ended itself."""
    found = wait_job(
        namespace,
        name,
        f"{count} tasks of {name} have ended",
        lambda now: over(told(now)) >= count,
        END_SECONDS,
    )
    assert not ended(found), "the job is too short for what is done to it"
    say(f"{told(found)['summary']}: {found['status']['message']}")
    return found


@pytest.mark.timeout(2400)
def test_a_pool_comes_to_the_same_through_kills_of_all_its_parts(
    release: Kubectl, namespace: Kubectl, volume: Path, alone: Future[dict[str, str]]
) -> None:
    on_rig(release)
    manifest = sweep(NAME, TASKS)
    manifest["spec"]["output"] = {"volume": {"persistentVolumeClaim": {"claimName": "output"}}}
    namespace.apply(manifest)

    dice = random.Random(1)
    for number in range(KILLS):
        found = wait_over(namespace, NAME, 1 + number * EVERY)
        if number == 0:
            nodes = {pod["spec"]["nodeName"] for pod in namespace.pods(NAME)}
            assert len(nodes) == 2, "the pool is on both nodes"
        slow.kill_trainer(dice.choice(namespace.pods(NAME)))
        say(f"trainer {number + 1} of {KILLS} is killed")

    found = wait_over(namespace, NAME, 3 + (KILLS - 1) * EVERY)
    victim = namespace.pods(NAME)[-1]
    namespace.run("delete", "pod", victim["metadata"]["name"], "--wait=false")
    say(f"{victim['metadata']['name']} is deleted")

    found = wait_over(namespace, NAME, 5 + (KILLS - 1) * EVERY)
    before = over(told(found))
    killed = kill_operator(release, f"{before} of {TOTAL} tasks ended")
    say(f"the operator is killed, and another is ready after {killed.ready_after:.1f} s")
    found = namespace.get(KIND, NAME) or {}
    assert over(told(found)) >= before, "what had ended has ended"

    found = wait_ended(namespace, NAME, END_SECONDS)
    status = found["status"]
    assert status["state"] == "Succeeded", status
    causes = slow.causes(found)
    # Those that fall between two tasks cost nobody a recovery.
    assert not FULL or causes["Killed"] > KILLS // 2
    say(f"recoveries: {causes}")
    counts = ("total", "pending", "running", "succeeded", "failed", "stopped")
    assert [told(found).get(key) for key in counts] == [TOTAL, 0, 0, TOTAL, 0, 0]
    assert told(found)["summary"] == f"{TOTAL}/{TOTAL}"
    assert status["progress"]["percent"] == 100
    assert len(json.dumps(found)) < 100 * 1024

    folder = volume / NAME
    with (folder / "tasks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    weights = {row["name"]: row["weightsSha256"] for row in rows}
    # Each once: none was lost, none was done twice.
    assert sorted(row["name"] for row in rows) == sorted(f"task-{n}" for n in range(TOTAL))
    assert {row["state"] for row in rows} == {"Succeeded"}
    ends = [int(row["ended"]) for row in rows]
    assert len(set(ends)) == TOTAL
    assert weights == alone.result(LOCAL_SECONDS)
    best = told(found)["best"]
    assert best["weightsSha256"] == weights[best["name"]] == status["result"]["weightsSha256"]
    say(f"{TOTAL} tasks, the same weights as on one worker here; {status['message']}")


def test_a_parameter_that_the_entrypoint_does_not_take_is_refused_before_any_pod(
    namespace: Kubectl,
) -> None:
    tasks = {"sweep": {"parameters": [{"name": "wdith", "values": [1, 2]}]}}
    namespace.apply(sweep("misspelt", tasks))
    found = wait_job(
        namespace,
        "misspelt",
        "the job is not accepted",
        lambda seen: condition(seen, "Accepted").get("status") == "False",
    )
    message = condition(found, "Accepted")["message"]
    assert "spec.tasks.sweep.parameters[0].name" in message
    assert "'wdith' is no parameter of shardwise.examples.digits:task" in message
    assert found["status"]["state"] == "Invalid"
    assert not namespace.pods("misspelt")


def test_a_task_that_fails_fails_alone(namespace: Kubectl) -> None:
    code = (
        "from shardwise.examples import digits\n\n\n"
        "def task(hidden: int):\n"
        "    if hidden == 13:\n"
        '        raise ValueError("thirteen brings bad luck")\n'
        "    return digits.task(hidden=hidden)\n"
    )
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "lucky"},
            "data": {"lucky.py": code},
        }
    )
    tasks = {"sweep": {"parameters": [{"name": "hidden", "values": [12, 13, 14]}]}}
    manifest = sweep("lucky", tasks, entrypoint="lucky:task", codeFrom={"configMap": "lucky"})
    manifest["spec"]["trainer"]["epochs"] = 2
    manifest["spec"]["trainer"]["evaluateEveryEpochs"] = 0
    namespace.apply(manifest)
    found = wait_ended(namespace, "lucky", END_SECONDS)
    assert found["status"]["state"] == "Succeeded", found["status"]
    assert (told(found)["succeeded"], told(found)["failed"]) == (2, 1)
    failed = next(row for row in told(found)["items"] if row["state"] == "Failed")
    assert (failed["name"], failed["reason"]) == ("task-1", "UserCodeFailed")
    assert "thirteen brings bad luck" in failed["message"]
    events = wait_until(
        "an Event tells of it",
        lambda: [
            event["message"]
            for event in namespace.list("events")
            if event["involvedObject"]["name"] == "lucky" and event["reason"] == "UserCodeFailed"
        ],
    )
    assert len(events) == 1
    assert "task task-1 failed" in events[0]
