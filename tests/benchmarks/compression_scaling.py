"""Calibration and Hessians on two workers beside one: ratios, both in one run, taken in turns.

    python tests/benchmarks/compression_scaling.py

Static int8's two passes on the CNN of examples/fashion_mnist, and the Hessians of the transformer
of examples/shakespeare; initial weights, real samples. Prints the median of each over the rounds,
and ratios: of wall time, which needs as many free cores as workers; of the least wall times, which
a moment of free cores is enough for; and of the CPU time of the busier worker, which tells how the
work is shared whatever else runs. What every worker does for
itself in such a step (solving, GPTQ at 4 bits) is told beside it. The load is printed; where it
says that the cores are not free, so is the ratio of wall time to be read.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist

from shardwise.compression.hessians import gather_hessians
from shardwise.compression.layers import find_weights
from shardwise.compression.reduction import Samples
from shardwise.compression.solve import quantize_with_hessian
from shardwise.compression.static import Prepared
from shardwise.engine.group import Alone
from shardwise.examples import fashion_mnist, shakespeare

SHARDS, SEED = 8, 1
TIMEOUT = timedelta(seconds=600)


class Peers:
    """A group over a plain gloo process group."""

    def __init__(self, group, rank, size):
        self.group, self.rank, self.size = group, rank, size

    def send(self, tensor, to, tag):
        return self.group.send([tensor], to, tag)

    def receive(self, tensor, source, tag):
        return self.group.recv([tensor], source, tag)


def calibration():
    """Both passes of static int8 over 2,048 images."""
    torch.manual_seed(SEED)
    task = fashion_mnist.task(width=32)
    prepared = Prepared(task)
    samples = drawn(task, 2048, 64)

    def work(group):
        least, most = prepared.limits(group, samples)
        prepared.histograms(group, samples, least, most)

    return work, None


def hessians():
    """Those of all layers of a transformer of width 128 over 512 windows of 64 letters."""
    torch.manual_seed(SEED)
    task = shakespeare.task(width=128, layers=2)
    weights = find_weights(task.model)
    samples = drawn(task, 512, 16)
    found = {}

    def work(group):
        found.update(gather_hessians(group, task, samples, weights, list(weights)))

    def solve():
        for name, hessian in found.items():
            matrix = weights[name].matrix()
            quantize_with_hessian(
                matrix, hessian, bits=4, group_size=64, symmetric=False, kept=None, name=name
            )

    return work, solve


def drawn(task, count, batch_size):
    return Samples.drawn(task.train, count, batch_size=batch_size, shards=SHARDS, seed=SEED)


WORKS = {"calibration": calibration, "Hessians": hessians}


def timed(call: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(folder: str, rank: int, size: int, rounds: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", size)
    group = dist.ProcessGroupGloo(store, rank, size, TIMEOUT)
    peers = Peers(group, rank, size)
    for name, make in WORKS.items():
        work, solve = make()
        alone, together = [], []
        for number in range(rounds + 1):
            group.barrier().wait()
            if rank == 0:
                alone.append(timed(partial(work, Alone())))
            group.barrier().wait()
            wall, cpu = timed(partial(work, peers))
            busiest = torch.tensor([wall, cpu], dtype=torch.float64)
            group.allreduce([busiest], dist.ReduceOp.MAX).wait()
            if number:  # the first is to warm up
                together.append(tuple(busiest.tolist()))
        if rank == 0:
            one = [statistics.median(column) for column in zip(*alone[1:], strict=True)]
            many = [statistics.median(column) for column in zip(*together, strict=True)]
            print(
                f"{name}: 1 worker {one[0]:.2f} s ({one[1]:.2f} s of CPU), {size} workers "
                f"{many[0]:.2f} s ({many[1]:.2f} s of CPU): ratio {one[0] / many[0]:.2f} of wall "
                f"time, {min(alone[1:])[0] / min(together)[0]:.2f} of the least wall times, "
                f"{one[1] / many[1]:.2f} of CPU time",
                flush=True,
            )
            if solve is not None:
                print(f"  solving, which each worker does: {timed(solve)[0]:.2f} s", flush=True)
        group.barrier().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before the run", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(options.workers):
            child = os.fork()
            if child == 0:
                measure(folder, rank, options.workers, options.rounds)
                os._exit(0)
            children.append(child)
        if any(os.waitpid(child, 0)[1] for child in children):
            sys.exit("a worker failed")


if __name__ == "__main__":
    main()
