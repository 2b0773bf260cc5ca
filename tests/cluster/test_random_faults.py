"""Random faults of every kind on a real cluster, some upon others: every job ends with the bytes
of a run without faults.

A few in `make test`; `make nightly` injects 300. `SHARDWISE_FAULTS` sets the number,
`SHARDWISE_FAULTS_SEED` the seed, by which the same list comes again.
"""

from __future__ import annotations

import os
import random
from concurrent.futures import Future

import pytest
import slow
from faults import FAULTS, Scene, drawn
from jobs import KIND, LOCAL_SECONDS, Job, assert_succeeded, ended, wait_job
from kubectl import Kubectl
from operators import on_rig
from progress import say

COUNT = int(os.environ.get("SHARDWISE_FAULTS", "5"))
SEED = int(os.environ.get("SHARDWISE_FAULTS_SEED", "1"))
SECONDS_OF_A_FAULT = 240
LAST_PART = 0.8
"""Of a job's steps: faults come before it, so that each finds steps left."""
NEVER = {"maxRestarts": 100}
"""The restart budget is tested elsewhere; here a container is killed many times."""


@pytest.mark.timeout(1200 + COUNT * SECONDS_OF_A_FAULT)
def test_any_faults_give_the_same_bytes(
    release: Kubectl, namespace: Kubectl, undisturbed: Future[str]
) -> None:
    on_rig(release)
    dice = random.Random(SEED)
    left = drawn(SEED, COUNT)
    number = 0
    while left:
        number += 1
        name = f"random-{number}"
        slow.start(namespace, name, workers={"min": 1}, restartPolicy=NEVER)
        slow.trains_on(namespace, name, 4, {}, "all train")
        scene = Scene(release, namespace, name, dice)
        while left and room(namespace.get(KIND, name) or {}):
            fault = left.pop(0)
            say(f"{COUNT - len(left)} of {COUNT}: {fault}")
            FAULTS[fault][0](scene)
            if dice.random() < 0.7:  # Otherwise the next one strikes while this one is dealt with.
                slow.gets_on(namespace, name, dice.randint(1, 5))
        found = finish(namespace, name)
        assert_succeeded(found)
        assert found["status"]["result"]["weightsSha256"] == undisturbed.result(LOCAL_SECONDS), (
            f"job {name}, seed {SEED}"
        )
        slow.tell(f"{name} ended", found)
        namespace.run("delete", KIND, name, "--wait=false")


def room(found: Job) -> bool:
    progress = found.get("status", {}).get("progress", {})
    total = int(progress.get("totalSteps") or 0)
    return not total or slow.step(found) < LAST_PART * total


def finish(namespace: Kubectl, name: str) -> Job:
    """The job as it ended; pods that come late are told to hurry as well."""

    def accept(found: Job) -> bool:
        if not ended(found):
            slow.hurry(namespace, name)
        return ended(found)

    return wait_job(namespace, name, "the job ends", accept)
