"""A kill, a power cut or an error at every single operation on the file system, of every rank.

Afterwards the newest checkpoint is the old one or the new one, whole, and never anything else.
"""

from __future__ import annotations

import copy
import errno
import functools
import itertools
import random
from collections.abc import Iterator

import pytest
from disk import Disk, KilledError, Process
from states import IDENTITY, Group, same, state

from shardwise.checkpoint import newest
from shardwise.checkpoint.files import Local
from shardwise.checkpoint.layout import job_digits
from shardwise.checkpoint.retention import State, survey

ROOT = "/checkpoints"
OLD, NEW, LATER = 10, 20, 30
SIZES = (1, 2, 3)


def local(disk: Disk, **faults: int) -> Local:
    return Local(ROOT, system=Process(disk, **faults))


def found(disk: Disk) -> int:
    """The step of the newest checkpoint, after a look that every byte of it is right.

    None is committed and lacks a part either: not even one that was being removed.
    """
    assert State.UNSOUND not in survey(local(disk), job_digits(IDENTITY)).values()
    snapshot = newest(ROOT, IDENTITY, files=local(disk))
    assert snapshot is not None
    assert same(snapshot, state(snapshot.step))
    return snapshot.step


@functools.cache
def _begun(size: int) -> Disk:
    disk = Disk()
    Group([local(disk) for _ in range(size)], keep=1).save(OLD)
    assert found(disk) == OLD
    return disk


def begun(size: int) -> Disk:
    """A disk with a committed checkpoint."""
    return copy.deepcopy(_begun(size))


def faulty_saves(
    size: int, order: tuple[int, ...], rank: int, **more: int
) -> Iterator[tuple[Disk, Group, Process]]:
    """The second checkpoint saved with a rank killed before its first operation, its second, and
    so on until it comes through."""
    kind, extra = ("fail_at", more) if more else ("kill_at", {})
    for number in itertools.count():
        disk = begun(size)
        systems = [Process(disk) for _ in range(size)]
        systems[rank] = Process(disk, **{kind: number}, **extra)
        group = Group([Local(ROOT, system=each) for each in systems], keep=1)
        for each in order:
            try:
                group.write(NEW, each)
            except KilledError:
                assert each == rank
        try:
            group.savers[0].poll()
        except KilledError:
            assert rank == 0
        yield disk, group, systems[rank]
        if systems[rank].done <= number:
            return


def orders(size: int) -> set[tuple[int, ...]]:
    """Rank 0 first, and last."""
    return {tuple(range(size)), tuple(range(size))[::-1]}


@pytest.mark.parametrize("size", SIZES)
def test_a_kill_leaves_the_old_or_the_new_one(size: int) -> None:
    points = 0
    for order, rank in itertools.product(orders(size), range(size)):
        for disk, group, _ in faulty_saves(size, order, rank):
            points += 1
            step = found(disk)
            assert step in (OLD, NEW)
            if NEW in group.committed:
                assert step == NEW
            # The next life commits, and clears up after this one.
            later = Group([local(disk) for _ in range(size)], keep=1, generation=2)
            later.save(LATER)
            assert later.committed == [LATER]
            assert found(disk) == LATER
            states = survey(local(disk), job_digits(IDENTITY))
            assert {name.step: each for name, each in states.items()} == {LATER: State.SOUND}
        assert NEW in group.committed, "the last of them was not killed"
    assert points > 30 * size


@pytest.mark.parametrize("size", SIZES)
def test_a_power_cut_leaves_the_old_or_the_new_one(size: int) -> None:
    for rank in range(size):
        for number, (disk, group, _) in enumerate(faulty_saves(size, tuple(range(size)), rank)):
            disk.cut_power(random.Random(f"{size} {rank} {number}"))
            step = found(disk)
            assert step in (OLD, NEW)
            # What was reported as committed is durable.
            if NEW in group.committed:
                assert step == NEW


@pytest.mark.parametrize(
    "size, error", [(1, errno.EIO), (1, errno.EACCES), (2, errno.ENOSPC), (3, errno.ESTALE)]
)
def test_an_error_is_reported_and_the_next_one_is_committed(size: int, error: int) -> None:
    for rank in range(size):
        for disk, group, process in faulty_saves(size, tuple(range(size)), rank, error=error):
            step = found(disk)
            assert step in (OLD, NEW)
            if NEW in group.committed:
                assert step == NEW
            else:
                assert process.fail_at is not None
                assert group.errors, f"operation {process.fail_at} of rank {rank}"
                assert f"checkpoint of step {NEW}" in group.errors[0]
            process.fail_at = None
            group.save(LATER)
            assert LATER in group.committed
            assert found(disk) == LATER


def test_a_disk_without_power_forgets() -> None:
    # The proof that the disk of these tests is as bad as it should be.
    disk = begun(1)
    process = Process(disk)
    process.write(process.open(f"{ROOT}/unsynced", 0o101), b"data")
    kept = []
    for seed in range(20):
        process = Process(disk)
        disk.cut_power(random.Random(seed))
        try:
            process.open(f"{ROOT}/unsynced", 0)
            kept.append(seed)
        except FileNotFoundError:
            break
    assert len(kept) < 20
