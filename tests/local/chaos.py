"""Runs under faults: seeded lists of them, and a run in this process that can be reached into.

The same seed gives the same list, so that any run can be had again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from runs import EXAMPLES

from shardwise.api.types import OptimizationJob
from shardwise.coordinator import TaskReport
from shardwise.local.run import Ended, LocalRun, Setting

NIGHTLY = os.environ.get("SHARDWISE_CHAOS") == "nightly"
"""Twenty times what the promise says, as `make nightly` runs a part of it."""
FULL = os.environ.get("SHARDWISE_CHAOS") == "full" or NIGHTLY
"""All that the promise says, as `make chaos` runs it; otherwise a tenth of it."""
MODELS = ["digits", "fashion-mnist"] if FULL and not NIGHTLY else ["digits"]
"""Fashion-MNIST's steps are ten times as long; `make test` has it in test_same_bytes.py."""
SEED = int(os.environ.get("SHARDWISE_CHAOS_SEED", "1"))

WATCHDOG_SECONDS = 5.0
"""Shorter than a worker's own, so that who hangs is soon back."""
LIMIT_SECONDS = 1800.0 if FULL else 540.0
"""For one run, and whatever is waited for beside it."""


def faults(
    seed: int, *, steps: int, workers: int, counts: Mapping[str, int], transfers: int = 6
) -> list[str]:
    """Faults of the kinds and numbers in `counts`, spread over the steps and the workers.

    A part of them strikes in the middle of a step, at one of its first `transfers` waits for a
    peer. They begin after a twentieth of the steps and end before the last fifth: a fault that
    comes late must find steps left.
    """
    dice = random.Random(seed)
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    dice.shuffle(kinds)
    moments = sorted(dice.sample(range(steps // 20, steps - steps // 5), len(kinds)))
    return [
        _fault(dice, kind, step, workers, transfers)
        for kind, step in zip(kinds, moments, strict=True)
    ]


def _fault(dice: random.Random, kind: str, step: int, workers: int, transfers: int) -> str:
    if kind == "crash-coordinator":
        return f"{kind}@{step}"
    place = f"/{dice.randint(1, transfers)}" if dice.random() < 0.4 else ""
    return f"{kind}:{dice.randrange(workers)}@{step}{place}"


def example(name: str, **trainer: Any) -> dict[str, Any]:
    """An example's manifest, with other settings of its trainer."""
    job: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    if "steps" in trainer:
        job["spec"]["trainer"].pop("epochs", None)
    job["spec"]["trainer"] |= trainer
    return job


def count(full: int) -> int:
    """How many faults of a kind, of those that the promise says."""
    if NIGHTLY:
        return 20 * full
    return full if FULL else max(2, full // 10)


def manifest(
    steps: int, name: str = "digits", partition: str = "none", **spec: Any
) -> dict[str, Any]:
    """A job of that many steps, for four workers and up to eight."""
    job = example(name, steps=steps, partition=partition, evaluateEveryEpochs=5)
    job["spec"] |= {**spec, "workers": {"replicas": 4, "max": 8}}
    return job


@dataclass(frozen=True)
class Outcome:
    """How a run under faults ended."""

    ended: Ended
    result: dict[str, Any]
    struck: frozenset[str]
    """The faults that did strike."""

    @property
    def hashes(self) -> tuple[str, str]:
        return self.result["weightsSha256"], self.result["optimizerSha256"]

    @property
    def recoveries(self) -> Mapping[str, int]:
        return self.ended.report.recoveries


Driver = Callable[[LocalRun], Awaitable[None]]


def run(
    manifest: Mapping[str, Any],
    *,
    workers: int,
    listed: Sequence[str] = (),
    driver: Driver | None = None,
    kind: type[LocalRun] = LocalRun,
) -> Outcome:
    """Run a job under faults to its end; a driver does what no fault can, beside it."""
    job = OptimizationJob.model_validate(manifest)
    crashes = [int(fault.partition("@")[2]) for fault in listed if fault.startswith("crash")]

    async def main(folder: Path) -> Outcome:
        setting = Setting(
            workers=workers,
            output=folder / "out",
            faults=[fault for fault in listed if not fault.startswith("crash")],
            crashes=crashes,
            watchdog_seconds=WATCHDOG_SECONDS,
        )
        local = kind(job, setting, folder)
        await local.start()
        driving = asyncio.create_task(_drive(driver, local))
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                ended = await local.follow(asyncio.Event(), _quiet)
        except TimeoutError:
            _end_now(local)
            raise AssertionError(f"no end within {LIMIT_SECONDS} s: {local.report()}") from None
        finally:
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
            await local.stop()
        if driving.done() and not driving.cancelled() and driving.exception() is not None:
            raise AssertionError("the driver failed") from driving.exception()
        assert ended.failure is None, ended.failure
        result = json.loads((folder / "out" / "result.json").read_text())
        struck = frozenset(path.name for path in (folder / "faults").iterdir())
        return Outcome(ended, result, struck)

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        return asyncio.run(main(Path(folder)))


def _quiet(report: TaskReport) -> None:
    del report


async def _drive(driver: Driver | None, local: LocalRun) -> None:
    if driver is not None:
        await driver(local)


def _end_now(local: LocalRun) -> None:
    assert local.launcher is not None
    os.killpg(local.launcher.pid, signal.SIGKILL)


async def until(test: Callable[[], bool], what: str, seconds: float = LIMIT_SECONDS) -> None:
    """Wait until the test holds, beside the run."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


async def strike(local: LocalRun, blow: str, dice: random.Random) -> None:
    """Strike some worker, or the coordinator, wherever it is in its step."""
    if blow == "crash-coordinator":
        await local.restart_coordinator()
        return
    number = {"kill": signal.SIGKILL, "hang": signal.SIGSTOP, "leave": signal.SIGTERM}[blow]
    there = processes(local)
    if there:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(there[dice.choice(sorted(there))], number)


def step(local: LocalRun) -> int:
    progress = local.report().progress
    return 0 if progress is None else progress.step


def processes(local: LocalRun) -> dict[int, int]:
    """The workers' processes by index, found by the name that each gives itself."""
    assert local.launcher is not None
    found: dict[int, int] = {}
    pending = [local.launcher.pid]
    while pending:
        pid = pending.pop()
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue  # it has ended meanwhile
        pending += [int(child) for child in children]
        if name.startswith("shardwise-"):
            found[int(name.removeprefix("shardwise-"))] = pid
    return found


@cache
def undisturbed(steps: int, name: str = "digits") -> tuple[str, str]:
    """The hashes of a run on one worker to which nothing happens."""
    return run(manifest(steps, name), workers=1).hashes
