"""Goodput under kills: steps kept over steps possible, with a SIGKILL every ten seconds.

    python tests/benchmarks/recovery/goodput.py --rounds 5

One run, in which stretches with kills and without take turns, so that a machine's drift hits both:
the steps a second of the first over those of the second. Prints the ratio over all rounds, and what
the job's own goodput says, as `status.goodput` has it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import ours
from tracing import Trace

from shardwise.local.run import LocalRun, Setting

EVERY_SECONDS = 10.0
KILLS = 3
"""Of each stretch; one without is as long."""


class Goodput:
    """One run, and the steps in stretches of it."""

    def __init__(self, run: LocalRun, trace: Trace, workers: int) -> None:
        self._run, self._trace, self._workers = run, trace, workers
        self._dice = random.Random(1)

    async def stretch(self, kills: int) -> float:
        """Steps a second; each kill falls somewhere in the first half of its ten seconds."""
        full = lambda: len(self._run.report().members) == self._workers  # noqa: E731
        await ours.until(full, "full strength")
        self._trace.forget()
        began = time.monotonic()
        for number in range(KILLS):
            if number < kills:
                await asyncio.sleep(EVERY_SECONDS / 2 * self._dice.random())
                self._kill()
            await asyncio.sleep(began + (number + 1) * EVERY_SECONDS - time.monotonic())
        self._trace.news()
        return self._trace.steps / (time.monotonic() - began)

    def _kill(self) -> None:
        assert self._run.launcher is not None
        pids = ours.worker_pids(self._run.launcher.pid)
        os.kill(pids[self._dice.choice(sorted(pids))], signal.SIGKILL)


async def measure(workers: int, rounds: int) -> dict[str, object]:
    ours.find_models()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRACE"] = f"{folder}/trace"
        setting = Setting(workers=workers, output=Path(folder, "out"))
        run = LocalRun(ours.job(10_000_000, workers), setting, Path(folder))
        await run.start()
        assert run.launcher is not None
        goodput, calm, struck = Goodput(run, Trace(Path(folder, "trace")), workers), [], []
        try:
            await ours.until(lambda: run.report().progress is not None, "first step")
            for number in range(rounds):
                for kills in (0, KILLS) if number % 2 else (KILLS, 0):
                    (struck if kills else calm).append(await goodput.stretch(kills))
                print(
                    f"{struck[-1]:.1f} steps/s with kills, {calm[-1]:.1f} without, "
                    f"load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
            report = run.report()
            return {
                "kills": rounds * KILLS,
                "stepsKeptOverPossible": round(sum(struck) / sum(calm), 4),
                "goodputOfStatus": round(
                    report.seconds["productive"] / sum(report.seconds.values()), 4
                ),
                "recoveries": dict(report.recoveries),
                "lostSteps": report.lost_steps,
            }
        finally:
            await ours.end(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.workers, options.rounds))))


if __name__ == "__main__":
    main()
