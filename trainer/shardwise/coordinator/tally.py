"""What a task has been through: recoveries by cause, losses, seconds by kind, checkpoints. Pure."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace

from shardwise.api.metrics import SECONDS_KINDS
from shardwise.coordinator.protocol import CheckpointReport
from shardwise.coordinator.report import Assignment, Cause, CheckpointState, Loss

LOSSES = 16
ERROR_LENGTH = 1000


class Tally:
    """The totals of one task, on top of what its assignment brings along."""

    def __init__(self, assignment: Assignment) -> None:
        self.recoveries: Counter[str] = Counter(assignment.recoveries)
        self.seconds: dict[str, float] = dict(assignment.seconds)
        self.losses: deque[Loss] = deque(maxlen=LOSSES)
        self.lost_steps = assignment.lost_steps
        self.reached_step = assignment.reached_step
        """The highest step that some worker was known to stand at."""
        self.recovery_seconds: float | None = None
        self.checkpoint: CheckpointState | None = None
        self._noticed: float | None = None

    def notice(self, now: float) -> None:
        """The group is in trouble; the time to its next go counts as recovery."""
        if self._noticed is None:
            self._noticed = now

    def lost(self, worker: str, index: int, cause: Cause, now: float) -> None:
        """A member was lost."""
        self.notice(now)
        self.recoveries[cause] += 1
        self.losses.append(
            Loss(worker=worker, index=index, cause=cause, at=now, step=self.reached_step)
        )

    def count(self, cause: Cause, times: int = 1) -> None:
        """The group has changed without a loss."""
        if times:
            self.recoveries[cause] += times

    def reached(self, step: int) -> None:
        self.reached_step = max(self.reached_step, step)

    def went(self, step: int, now: float) -> None:
        """A generation got its go; `step` is the highest that its members stand at."""
        if self._noticed is not None:
            self.recovery_seconds = now - self._noticed
            self._noticed = None
        for place, loss in enumerate(self.losses):
            if loss.seconds is None:
                self.losses[place] = replace(loss, seconds=now - loss.at)
        # One step less is the step under way, which the dead alone had finished: it is retried.
        if step + 1 < self.reached_step:
            self.lost_steps += self.reached_step - step
        self.reached_step = step

    def spent(self, seconds: Mapping[str, float]) -> None:
        """Seconds by kind, as a worker tells them."""
        for kind, spent in seconds.items():
            known = kind in SECONDS_KINDS
            if known and math.isfinite(spent) and spent > 0:
                self.seconds[kind] = self.seconds.get(kind, 0.0) + spent

    def checkpointed(self, report: CheckpointReport, now: float) -> None:
        """A checkpoint was committed or failed; a failure leaves the last good one in place."""
        if report.error:
            last = self.checkpoint or CheckpointState(step=0, at=now, bytes=0, seconds=0.0)
            self.checkpoint = replace(last, error=report.error[:ERROR_LENGTH])
        else:
            self.checkpoint = CheckpointState(
                step=report.step, at=now, bytes=report.bytes, seconds=report.seconds
            )
