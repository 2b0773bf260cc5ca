"""A task of a pool that workers are at."""

from __future__ import annotations

from dataclasses import dataclass, field

from shardwise.coordinator.allotment import Crew
from shardwise.coordinator.report import Assignment, TaskReport
from shardwise.sweep import Stretch


@dataclass(slots=True)
class Running:
    """A stretch of a task that workers are at; `planned` is None for what is no task's own."""

    planned: Stretch | None
    assignment: Assignment
    wanted: int
    began: float
    workers: set[str] = field(default_factory=set)
    report: TaskReport | None = None
    deaths: int = 0
    deaths_at: int = -1
    """The step that it stood at when a worker died last."""

    @property
    def step(self) -> int:
        progress = None if self.report is None else self.report.progress
        return 0 if progress is None else progress.step

    def crew(self) -> Crew:
        progress = None if self.report is None else self.report.progress
        left = None if progress is None else progress.eta_seconds
        return Crew(wanted=self.wanted, there=len(self.workers), left_seconds=left)
