"""Shardwise under kills, hangs and cut links: when it noticed, and when the next step came."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tracing import Measured, Trace

from shardwise.api.types import OptimizationJob
from shardwise.local.run import LocalRun, Setting

HERE = Path(__file__).parent
PAUSE_SECONDS = 0.5
"""Between a recovery to full strength and the next blow."""
LIMIT_SECONDS = 60.0


def job(
    steps: int, workers: int, *, entrypoint: str = "traced:task", shards: int = 8
) -> OptimizationJob:
    return OptimizationJob.model_validate(
        {
            "apiVersion": "shardwise.dev/v1alpha1",
            "kind": "OptimizationJob",
            "metadata": {"name": "recovery"},
            "spec": {
                "trainer": {
                    "entrypoint": entrypoint,
                    "steps": steps,
                    "batchSize": 192,
                    "shards": shards,
                    "evaluateEveryEpochs": 0,
                },
                "workers": {"replicas": workers},
            },
        }
    )


def worker_pids(launcher: int) -> dict[int, int]:
    """The workers' processes by index, found by the name that each gives itself."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        try:
            name = Path(f"/proc/{child}/comm").read_text().strip()
        except OSError:
            continue
        if name.startswith("shardwise-"):
            found[int(name.removeprefix("shardwise-"))] = int(child)
    return found


def find_models() -> None:
    """Let workers import the tasks that lie here."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


class Blows:
    """What strikes a worker of a local run."""

    kind: type[LocalRun] = LocalRun

    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def strike(self, run: LocalRun, index: int) -> None:
        assert run.launcher is not None
        os.kill(worker_pids(run.launcher.pid)[index], self._number)

    def heal(self, index: int) -> None:
        """What the blow did to the machine is undone."""


async def measure(workers: int, blows: int, strikes: Blows, seed: int = 1) -> Measured:
    """The time from each blow to the next step that is new."""
    find_models()
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRACE"] = f"{folder}/trace"
        trace = Trace(Path(folder, "trace"))
        setting = Setting(workers=workers, output=Path(folder, "out"), watchdog_seconds=2.0)
        run = strikes.kind(job(1_000_000, workers), setting, Path(folder))
        await run.start()
        assert run.launcher is not None
        try:
            seconds = []
            for _ in range(blows):
                await until(lambda: len(run.report().members) == workers, "full strength")
                await until(lambda: bool(trace.news()), "step at full strength")
                await asyncio.sleep(PAUSE_SECONDS * dice.random())
                trace.news()
                index = dice.randrange(workers)
                at = time.time()
                strikes.strike(run, index)
                seconds.append(await _next_step(run, trace, at))
                strikes.heal(index)
            assert run.report().lost_steps == 0
            return trace.measured(seconds)
        finally:
            await end(run)


async def end(run: LocalRun) -> None:
    """End a run whose task is not over."""
    assert run.launcher is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.launcher.pid, signal.SIGKILL)
    await run.stop()


async def _next_step(run: LocalRun, trace: Trace, at: float) -> float:
    """Until the first step of the generation that does without the worker that was struck.

    A step that was complete but for its commit when the blow fell is not taken for it.
    """
    await until(lambda: _go_after(run, at) is not None, "generation without the lost worker")
    go = _go_after(run, at)
    assert go is not None
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        for done, _ in trace.news():
            if done >= go:
                return done - at
        await asyncio.sleep(0.002)
    raise TimeoutError("no step followed")


def _go_after(run: LocalRun, at: float) -> float | None:
    """When the generation that handled a loss since `at` was let go; None while it was not."""
    for loss in run.report().losses:
        if loss.at >= at and loss.seconds is not None:
            return loss.at + loss.seconds
    return None


async def until(test: Callable[[], bool], what: str, seconds: float = LIMIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not test():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:.0f} s")
        await asyncio.sleep(0.01)
