"""The table of a pool's tasks: a row each, counts by state, and who is ahead. Pure."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shardwise.coordinator.report import RowState, TaskRow
from shardwise.coordinator.standing import Standing
from shardwise.sweep import Stretch

SHOWN = 64
FAILURES = 3
NO_FIGURE = "NoFigure"


class Table:
    """The tasks that have begun, by their trial's number.

    Args:
        objectives: spec.tasks.objectives in its JSON form.
    """

    def __init__(self, objectives: Sequence[Mapping[str, Any]]) -> None:
        self.objectives = tuple(str(each["metric"]) for each in objectives)
        self.standing = Standing(objectives)
        self.rows: dict[int, TaskRow] = {}
        self.counts: Counter[RowState] = Counter()
        self.ended: deque[int] = deque(maxlen=SHOWN)
        """The trials that ended last."""
        self.failures: deque[int] = deque(maxlen=FAILURES)
        """The trials that failed last."""
        self.ended_here = 0
        """Tasks that have ended under this coordinator."""
        self.steps = 0
        """Steps of the tasks that no worker is at, as far as they are known."""
        self.stepped = 0
        """How many tasks these are of."""
        self._ends = 0

    def begin(self, planned: Stretch) -> None:
        """Workers are at a task."""
        row = self.rows.get(planned.trial) or _blank(planned)
        self._set(planned.trial, replace(row, state="Running"))

    def remember(self, planned: Stretch, values: Sequence[float] | None) -> None:
        """An earlier coordinator has written down what a stretch came to; None: it failed."""
        row = _blank(planned)
        if values is None:
            self._end(planned.trial, row, "Failed")
            return
        row = replace(row, metrics=dict(zip(self.objectives, values, strict=True)))
        if planned.until is None:
            self.standing.add(planned.trial, values)
            self._end(planned.trial, row, "Succeeded")
        else:
            self._set(planned.trial, replace(row, state="Pending"))
        self.ended_here = 0

    def done(
        self, planned: Stretch, result: Mapping[str, Any], seconds: float, workers: int
    ) -> list[float] | None:
        """A stretch has its result; the objectives' values, or None where it lacks one and so
        has failed."""
        figures = {str(k): float(v) for k, v in (result.get("figures") or {}).items()}
        values = [figures.get(name, math.nan) for name in self.objectives]
        row = self.rows.get(planned.trial) or _blank(planned)
        row = replace(
            row,
            metrics=figures,
            weights_sha256=str(result.get("weightsSha256") or ""),
            step=int(result.get("steps") or 0),
            seconds=round(row.seconds + seconds, 3),
            workers=workers,
            reason="",
            message="",
        )
        lacking = [
            name for name, value in zip(self.objectives, values, strict=True) if math.isnan(value)
        ]
        if lacking:
            message = f"spec.tasks.objectives: its result has no {lacking[0]} that is a number"
            self._end(planned.trial, replace(row, reason=NO_FIGURE, message=message), "Failed")
            return None
        if planned.until is None:
            self.standing.add(planned.trial, values)
            self._end(planned.trial, row, "Succeeded")
        else:
            self._set(planned.trial, replace(row, state="Pending"))
        return values

    def failed(self, planned: Stretch, row: TaskRow) -> None:
        """A task has failed for good."""
        self._end(planned.trial, row, "Failed")

    def again(self, planned: Stretch, row: TaskRow) -> None:
        """A task is to be begun anew."""
        self._set(planned.trial, replace(row, state="Pending"))

    def stop_the_rest(self) -> None:
        """Nothing more is begun: what waits at a rung was stopped there."""
        for trial, row in self.rows.items():
            if row.state == "Pending":
                self._end(trial, row, "Stopped", shown=False)

    def newest(self) -> list[int]:
        """Trials that have ended: those that failed last, then those that ended last of the rest;
        in both, the newest first."""
        failures = list(reversed(self.failures))
        return [*failures, *(trial for trial in reversed(self.ended) if trial not in failures)]

    def _end(self, trial: int, row: TaskRow, state: RowState, *, shown: bool = True) -> None:
        self._ends += 1
        self.ended_here += 1
        self._set(trial, replace(row, state=state, ended=self._ends))
        if shown:
            self.ended.append(trial)
        if state == "Failed":
            self.failures.append(trial)

    def _set(self, trial: int, row: TaskRow) -> None:
        before = self.rows.get(trial)
        if before is not None:
            self.counts[before.state] -= 1
            self._count_steps(before, -1)
        self.counts[row.state] += 1
        self._count_steps(row, 1)
        self.rows[trial] = row

    def _count_steps(self, row: TaskRow, sign: int) -> None:
        if row.state != "Running" and row.step:
            self.steps += sign * row.step
            self.stepped += sign


def _blank(planned: Stretch) -> TaskRow:
    return TaskRow(name=planned.name, state="Pending", parameters=dict(planned.assigned))
