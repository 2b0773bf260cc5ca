"""Snapshots to write, and groups of savers that write them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from shardwise.checkpoint.files import Files, Local
from shardwise.checkpoint.layout import Name
from shardwise.checkpoint.saver import Report, Save, Saver
from shardwise.engine.flat import BLOCK, cuts
from shardwise.engine.snapshot import Snapshot

IDENTITY = "ab" * 32
LENGTH = 3 * BLOCK


def state(step: int, rank: int = 0, size: int = 1, *, length: int = LENGTH) -> Snapshot:
    """The state at a step, or a rank's part of it: the same bytes for the same arguments."""
    generator = torch.Generator().manual_seed(step)
    names = ("parameters", "optimizer/first", "optimizer/second")
    part = cuts(length, size)[rank]
    return Snapshot(
        step=step,
        evaluated=step - step % 4,
        length=length,
        part=part,
        vectors={name: torch.randn(length, generator=generator)[part].clone() for name in names},
        tensors={
            "mean": torch.randn(3, 4, generator=generator),
            "count": torch.tensor(step),
            "mask": torch.tensor([True, False]),
            "none": torch.empty(0, 7),
        },
        history=b"step,loss\n%d,0.5\n" % step,
    )


def same(one: Snapshot | None, other: Snapshot) -> bool:
    """Whether two snapshots are the same, bit for bit."""
    if one is None:
        return False
    numbers = [(s.step, s.evaluated, s.length, s.part, s.history) for s in (one, other)]
    return numbers[0] == numbers[1] and all(
        mine.keys() == theirs.keys()
        and all(
            mine[name].dtype == theirs[name].dtype
            and mine[name].shape == theirs[name].shape
            and mine[name].numpy().tobytes() == theirs[name].numpy().tobytes()
            for name in mine
        )
        for mine, theirs in ((one.vectors, other.vectors), (one.tensors, other.tensors))
    )


class Group:
    """The savers of a group's ranks, one after the other in this thread."""

    def __init__(self, files: Sequence[Files], *, keep: int = 2, generation: int = 1) -> None:
        self.reports: list[Report] = []
        self.generation = generation
        self.length = LENGTH
        self.savers = [
            Saver(
                each,
                identity=IDENTITY,
                keep=keep,
                on_report=self.reports.append,
            )
            for each in files
        ]

    @classmethod
    def at(
        cls,
        root: Path,
        size: int,
        *,
        keep: int = 2,
        generation: int = 1,
        length: int = LENGTH,
    ) -> Group:
        group = cls([Local(str(root))] * size, keep=keep, generation=generation)
        group.length = length
        return group

    def save(self, step: int, order: Iterable[int] | None = None) -> None:
        """All ranks, or those of an order, write their parts; then rank 0 commits."""
        for rank in range(len(self.savers)) if order is None else order:
            self.write(step, rank)
        self.savers[0].poll()

    def write(self, step: int, rank: int) -> None:
        """One rank writes its part."""
        size = len(self.savers)
        name = Name.of(step=step, generation=self.generation, workers=size, identity=IDENTITY)
        snapshot = state(step, rank, size, length=self.length)
        save = Save(snapshot=snapshot, rank=rank, name=name, began=time.monotonic())
        self.savers[rank].write(save)

    @property
    def errors(self) -> list[str]:
        return [report.error for report in self.reports if report.error]

    @property
    def committed(self) -> list[int]:
        return [report.step for report in self.reports if not report.error]


def everything(root: Path) -> list[Path]:
    """All files under a directory, sorted."""
    return sorted(path for path in root.rglob("*") if path.is_file())
