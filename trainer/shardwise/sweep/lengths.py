"""How long the training of each task of a sweep is.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardwise.sweep.algorithms import Algorithm
from shardwise.sweep.space import Parameter, Space


class Lengths:
    """Epochs or steps, whichever spec.trainer has: its own, or what the sweep sets.

    Args:
        algorithm: has the trials' values.
        space: the sweep's parameters.
        trainer: spec.trainer as JSON has it.
    """

    def __init__(self, algorithm: Algorithm, space: Space, trainer: Mapping[str, Any]) -> None:
        self.unit = "steps" if trainer.get("steps") is not None else "epochs"
        self._algorithm = algorithm
        self._given = trainer.get(self.unit) or 1
        self._parameter = space.by_field(f"trainer.{self.unit}")
        # A step has its batch's samples; an epoch has the same ones, however they are cut.
        self._batch = space.by_field("trainer.batchSize") if self.unit == "steps" else None
        self._batch_given = trainer.get("batchSize") or 1

    def __call__(self, trial: int) -> int:
        """Epochs or steps of a trial that has begun."""
        return self._value(trial, self._parameter, self._given)

    @property
    def shortest(self) -> int:
        """The fewest epochs or steps that a trial can have."""
        if self._parameter is None:
            return int(self._given)
        least = self._parameter.least()
        return min(least, self._given) if self._parameter.when else least

    def longest_first(self, total: int) -> Sequence[int]:
        """All trials, those with the most samples first; of equal ones the lower number."""
        trials = range(total)
        if self._parameter is None and self._batch is None:
            return trials
        work = [
            self(trial) * self._value(trial, self._batch, self._batch_given) for trial in trials
        ]
        return sorted(trials, key=lambda trial: (-work[trial], trial))

    def _value(self, trial: int, parameter: Parameter | None, given: int) -> int:
        value = None if parameter is None else self._algorithm.value(trial, parameter)
        return int(given if value is None else value)
