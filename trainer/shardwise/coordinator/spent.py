"""What a pool's tasks have taken: workers' time, and what groups went through. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from shardwise.coordinator.report import TaskReport


class _Staffed(Protocol):
    @property
    def workers(self) -> Collection[str]: ...


@dataclass(slots=True)
class Spent:
    """The totals of the groups that are over, and the time of the workers."""

    began: float
    marked: float
    """Up to when the workers' time is counted."""
    busy_seconds: float = 0.0
    """Worker-seconds at tasks."""
    idle_seconds: float = 0.0
    """Worker-seconds of waiting for one."""
    groups: int = 0
    generations: int = 0
    recoveries: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    lost_steps: int = 0
    steps: int = 0

    def mark(self, now: float, running: Mapping[str, _Staffed], idle: Collection[str]) -> None:
        """Time has come to `now`, with these workers where they have been since the last mark."""
        passed = max(0.0, now - self.marked)
        self.marked = max(self.marked, now)
        self.busy_seconds += passed * sum(len(each.workers) for each in running.values())
        self.idle_seconds += passed * len(idle)

    def add(self, report: TaskReport | None) -> None:
        """A group is over that had come to this."""
        self.groups += 1
        if report is None:
            return
        self.generations = max(self.generations, report.generation)
        self.recoveries.update(report.recoveries)
        for kind, seconds in report.seconds.items():
            self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
        self.lost_steps += report.lost_steps
        self.steps += 0 if report.progress is None else report.progress.step

    @property
    def utilization(self) -> float:
        """The part of the workers' time, from 0 to 1, in which they were at tasks."""
        whole = self.busy_seconds + self.idle_seconds
        return self.busy_seconds / whole if whole else 0.0
