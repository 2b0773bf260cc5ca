"""Which tasks of a pool are ahead: the best one, and the front where there are several objectives.

Kept up task by task, so that ten thousand of them cost no more than a front's length each. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shardwise.sweep import ranking


class Standing:
    """The order of the tasks that have succeeded.

    Args:
        objectives: spec.tasks.objectives in its JSON form; none where nothing is ranked.
    """

    def __init__(self, objectives: Sequence[Mapping[str, Any]]) -> None:
        self.metrics = tuple(str(each["metric"]) for each in objectives)
        self._directions = tuple(str(each.get("direction", "Maximize")) for each in objectives)
        self._best: tuple[tuple[float, ...], int] | None = None
        self._front: dict[int, tuple[float, ...]] = {}

    @property
    def best(self) -> int | None:
        """The trial that is best in the first objective; of equals in the next, and so on."""
        return None if self._best is None else self._best[1]

    @property
    def front(self) -> tuple[int, ...]:
        """The trials that no other is as good as in all objectives and better in one, in order."""
        return tuple(sorted(self._front))

    def add(self, trial: int, values: Sequence[float]) -> None:
        """A trial has succeeded with these values, one an objective. NaN ranks nowhere."""
        if not self.metrics or any(math.isnan(value) for value in values):
            return
        costs = ranking.costs(values, self._directions)
        if self._best is None or (costs, trial) < self._best:
            self._best = (costs, trial)
        if any(_dominates(other, costs) for other in self._front.values()):
            return
        self._front = {t: c for t, c in self._front.items() if not _dominates(costs, c)}
        self._front[trial] = costs


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
