"""The tree's sum beside gloo's own all-reduce: a ratio, both in one run, taken in turns.

    python tests/benchmarks/exchange.py

Both start from vectors that each worker has summed over its own shards, as any gradient
accumulation leaves them. Prints the median of each and the median of the pairwise ratios.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from shardwise.engine.exchange import TreeSum

ROUNDS = 15
SHARDS = 8
TIMEOUT = timedelta(seconds=60)


class Peers:
    """A group over a plain gloo process group."""

    def __init__(self, group: dist.ProcessGroupGloo, rank: int, size: int) -> None:
        self.group, self.rank, self.size = group, rank, size

    def send(self, tensor, to, tag):
        return self.group.send([tensor], to, tag)

    def receive(self, tensor, source, tag):
        return self.group.recv([tensor], source, tag)


def measure(folder: str, rank: int, size: int, length: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/{size}-{length}", size)
    group = dist.ProcessGroupGloo(store, rank, size, TIMEOUT)
    exchange = TreeSum(Peers(group, rank, size), SHARDS, length, torch.float32)
    total, plain = torch.empty(length), torch.ones(length)
    tree_times, plain_times = [], []
    for _ in range(ROUNDS + 2):
        for _shard in exchange.todo:
            exchange.push(exchange.leaf().fill_(1.0))
        group.barrier().wait()
        start = time.perf_counter()
        exchange.reduce(total)
        exchange.gather(total)
        tree_times.append(time.perf_counter() - start)
        exchange.reset()
        group.barrier().wait()
        start = time.perf_counter()
        group.allreduce([plain]).wait()
        plain_times.append(time.perf_counter() - start)
        plain.fill_(1.0)
    assert float(total[0]) == SHARDS
    if rank == 0:
        pairs = list(zip(tree_times[2:], plain_times[2:], strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        ours, theirs = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        print(
            f"{length:>10,} floats, {size} workers: tree {ours:7.2f} ms, "
            f"all_reduce {theirs:7.2f} ms, ratio {ratio:.2f}",
            flush=True,
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for length in (1 << 20, 10 << 20):
            for size in (2, 3, 4):
                children = []
                for rank in range(size):
                    child = os.fork()
                    if child == 0:
                        measure(folder, rank, size, length)
                        os._exit(0)
                    children.append(child)
                for child in children:
                    _, status = os.waitpid(child, 0)
                    assert status == 0, "a worker of the benchmark failed"


if __name__ == "__main__":
    main()
