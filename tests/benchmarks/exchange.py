"""The workers' exchange beside plain gloo, in one run, everything in turns.

    python tests/benchmarks/exchange.py

Each round sums vectors by the tree over gloo and over connections of our own, authenticated,
sealed and encrypted, and by gloo's own all-reduce. All start from vectors that each worker has
summed over its own shards, as any gradient accumulation leaves them. Prints the median times,
their ratios to all-reduce's (the median of the pairwise ones), and what a worker sends in MB/s;
then what one connection carries one way.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from shardwise.coordinator.protocol import PROTECTIONS
from shardwise.engine.exchange import TreeSum
from shardwise.worker.handshake import Self
from shardwise.worker.peers import PeerGroup

ROUNDS = 15
SHARDS = 8
SECONDS = 60.0
TIMEOUT = timedelta(seconds=SECONDS)
ALL_REDUCE = "all_reduce"
ONE_WAY = 64 << 20
"""Floats, in messages as long as the longest that the engine sends."""


class Peers:
    """A group over a plain gloo process group."""

    def __init__(self, group: dist.ProcessGroupGloo, rank: int, size: int) -> None:
        self.group, self.rank, self.size = group, rank, size

    def send(self, tensor, to, tag):
        return self.group.send([tensor], to, tag)

    def receive(self, tensor, source, tag):
        return self.group.recv([tensor], source, tag)


class FileControl:
    """What a group needs of the control connection, over a store."""

    def __init__(self, store: dist.Store) -> None:
        self._store = store

    def send(self, message):
        self._store.set(f"{message.generation}/{message.key}", message.value)
        return True

    def wait_value(self, generation, key, timeout):
        return self._store.get(f"{generation}/{key}")


def groups(gloo: dist.ProcessGroupGloo, store: dist.Store, rank: int, size: int):
    """One of each kind."""
    made = {"gloo": Peers(gloo, rank, size)}
    for generation, protection in enumerate(PROTECTIONS):
        me = Self(
            secret=bytes(32), generation=generation, rank=rank, size=size, protection=protection
        )
        made[protection] = PeerGroup(me, address="127.0.0.1", before_wait=lambda: None)
        made[protection].connect(FileControl(store), SECONDS)
    return made


def measure(folder: str, rank: int, size: int, length: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/{size}-{length}", size)
    gloo = dist.ProcessGroupGloo(store, rank, size, TIMEOUT)
    made = groups(gloo, store, rank, size)
    sums = {kind: TreeSum(group, SHARDS, length, torch.float32) for kind, group in made.items()}
    total, plain = torch.empty(length), torch.ones(length)
    times: dict[str, list[float]] = {kind: [] for kind in (*sums, ALL_REDUCE)}
    for _ in range(ROUNDS + 2):
        for kind, exchange in sums.items():
            for _shard in exchange.todo:
                exchange.push(exchange.leaf().fill_(1.0))
            gloo.barrier().wait()
            start = time.perf_counter()
            exchange.reduce(total)
            exchange.gather(total)
            times[kind].append(time.perf_counter() - start)
            exchange.reset()
            assert float(total[0]) == SHARDS
        gloo.barrier().wait()
        start = time.perf_counter()
        gloo.allreduce([plain]).wait()
        times[ALL_REDUCE].append(time.perf_counter() - start)
        plain.fill_(1.0)
    if rank == 0:
        sent = 2 * (size - 1) / size * length * 4
        print(f"{length:,} floats, {size} workers", flush=True)
        for kind, all_times in times.items():
            pairs = zip(all_times[2:], times[ALL_REDUCE][2:], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            middle = statistics.median(all_times[2:])
            print(
                f"  {kind:>13} {middle * 1e3:8.2f} ms, ratio {ratio:.2f}, "
                f"{sent / middle / 1e6:7.0f} MB/s",
                flush=True,
            )
    gloo.barrier().wait()


def one_way(folder: str, rank: int, size: int, length: int) -> None:
    """Worker 0 sends to worker 1."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/one-way", size)
    gloo = dist.ProcessGroupGloo(store, rank, size, TIMEOUT)
    vector = torch.ones(length)
    times: dict[str, list[float]] = {}
    made = groups(gloo, store, rank, size)
    for _ in range(7):
        for kind, group in made.items():
            gloo.barrier().wait()
            start = time.perf_counter()
            chunks = torch.split(vector, 1 << 20)
            if rank == 0:
                works = [group.send(chunk, 1, 0) for chunk in chunks]
            else:
                works = [group.receive(chunk, 0, 0) for chunk in chunks]
            for work in works:
                work.wait()
            times.setdefault(kind, []).append(time.perf_counter() - start)
    if rank == 1:
        print(f"one way, {length * 4 >> 20} MiB", flush=True)
        for kind, all_times in times.items():
            rate = length * 4 / statistics.median(all_times[2:]) / 1e6
            print(f"  {kind:>13} {rate:7.0f} MB/s", flush=True)
    gloo.barrier().wait()


def fork(work, folder: str, size: int, length: int) -> None:
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            work(folder, rank, size, length)
            os._exit(0)
        children.append(child)
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, "a worker of the benchmark failed"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for length in (1 << 20, 10 << 20):
            for size in (2, 3, 4):
                fork(measure, folder, size, length)
        fork(one_way, folder, 2, ONE_WAY)


if __name__ == "__main__":
    main()
