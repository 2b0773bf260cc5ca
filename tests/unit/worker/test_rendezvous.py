"""Groups over gloo: transfers that gloo forgets are given up."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from shardwise.engine.group import GroupError
from shardwise.worker.rendezvous import GlooGroup

LENGTH = 64 * 2**20
SECONDS = 60.0


class FileControl:
    """What a group needs of the control connection, over a file."""

    def __init__(self, path: Path) -> None:
        self._store = dist.FileStore(str(path), 2)

    def send(self, message):
        self._store.set(message.key, message.value)

    def wait_value(self, generation, key, seconds):
        self._store.wait([key], timedelta(seconds=seconds))
        return self._store.get(key)

    def sockets(self):
        return frozenset()


def group(path: Path, rank: int) -> GlooGroup:
    return GlooGroup(
        FileControl(path),
        1,
        (rank, 2),
        address="127.0.0.1",
        timeout=timedelta(seconds=SECONDS),
        before_wait=lambda: None,
    )


@contextlib.contextmanager
def peer(path: Path) -> Iterator[int]:
    """Another process, which sends a long message, and stays."""
    torch.set_num_threads(1)  # a fork has none of the others
    child = os.fork()
    if child == 0:
        try:
            group(path, 1).send(torch.ones(LENGTH), 0, 7).wait()
        finally:
            signal.pause()
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def until(test) -> None:
    end = time.monotonic() + SECONDS
    while not test():
        assert time.monotonic() < end
        time.sleep(0.0005)


def test_a_transfer_that_is_half_done_is_given_up(tmp_path):
    ends: list[str] = []

    def wait(transfer):
        try:
            transfer.wait()
        except GroupError as error:
            ends.append(str(error))

    with peer(tmp_path / "store") as child:
        mine = group(tmp_path / "store", 0)
        vector = torch.zeros(LENGTH)
        transfer = mine.receive(vector, 1, 7)
        waiting = threading.Thread(target=wait, args=(transfer,), daemon=True)
        waiting.start()
        until(lambda: vector[0] == 1)
        os.kill(child, signal.SIGSTOP)
        assert vector[-1] == 0, "it was over too soon to be half done"
        mine.abort()
        waiting.join(SECONDS)
        assert ends == ["a transfer failed: the group is given up"]
        # What follows ends at once, and is never taken for what ended before.
        with pytest.raises(GroupError, match="the group is given up"):
            transfer.wait()
        mine.release()


def test_a_transfer_that_has_ended_is_whole(tmp_path):
    with peer(tmp_path / "store"):
        mine = group(tmp_path / "store", 0)
        vector = torch.zeros(LENGTH)
        mine.receive(vector, 1, 7).wait()
        assert bool((vector == 1).all())
        mine.release()
