"""What recovery costs while nothing fails: steps a second with it against without it, in turns.

    python tests/benchmarks/recovery/machinery.py --rounds 5

Without: the same engine and gloo group in bare processes, no coordinator, no control connection,
no beats, no ledger, no faults, no reports. With: `shardwise run` as users have it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import ours
import torch
import torch.distributed as dist
import traced
from tracing import Trace

from shardwise.engine.plan import Plan
from shardwise.engine.training import Training
from shardwise.local.run import LocalRun, Setting

WARM_UP, STEPS = 100, 400
TIMEOUT = timedelta(seconds=60)


class Peers:
    """A group over a plain gloo process group."""

    def __init__(self, group: dist.ProcessGroupGloo, rank: int, size: int) -> None:
        self.group, self.rank, self.size = group, rank, size

    def send(self, tensor: torch.Tensor, to: int, tag: int) -> dist.Work:
        return self.group.send([tensor], to, tag)

    def receive(self, tensor: torch.Tensor, source: int, tag: int) -> dist.Work:
        return self.group.recv([tensor], source, tag)


def bare(workers: int) -> float:
    """Steps a second without the machinery."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRACE"] = f"{folder}/trace"
        children = [_fork(folder, rank, workers) for rank in range(workers)]
        for child in children:
            _, status = os.waitpid(child, 0)
            assert status == 0, "a bare worker failed"
        return _rate(Trace(Path(folder, "trace")))


def _fork(folder: str, rank: int, workers: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        store = dist.FileStore(f"{folder}/store", workers)
        group = dist.ProcessGroupGloo(store, rank, workers, TIMEOUT)
        training = Training(
            traced.task(),
            Plan(batch_size=192, shards=8, steps=WARM_UP + STEPS, evaluate_every_epochs=0),
        )
        training.join(Peers(group, rank, workers))
        while not training.done:
            training.step()
        group.barrier().wait()
        code = 0
    finally:
        os._exit(code)


async def complete(workers: int) -> float:
    """Steps a second of a local run."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRACE"] = f"{folder}/trace"
        setting = Setting(workers=workers, output=Path(folder, "out"))
        local = LocalRun(ours.job(WARM_UP + STEPS, workers), setting, Path(folder))
        await local.start()
        assert local.launcher is not None
        try:
            await ours.until(lambda: local.report().state == "finished", "the end", 600.0)
            return _rate(Trace(Path(folder, "trace")))
        finally:
            await ours.end(local)


def _rate(trace: Trace) -> float:
    """Steps a second after the warm-up."""
    times = {step: at for at, step in trace.news()}
    return STEPS / (times[WARM_UP + STEPS - 1] - times[WARM_UP - 1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    ours.find_models()
    ratios = []
    for _ in range(options.rounds):
        began = time.monotonic()
        without = bare(options.workers)
        with_it = asyncio.run(complete(options.workers))
        ratios.append(with_it / without)
        print(
            f"without {without:.1f}, with {with_it:.1f} steps/s, ratio {ratios[-1]:.3f} "
            f"({time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f})",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.3f} of {len(ratios)}")


if __name__ == "__main__":
    main()
