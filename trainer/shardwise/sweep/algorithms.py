"""What gives a sweep's trials their values: a small protocol, and the two that need no results.

Pure. Those of Optuna are in `optuna_sampler`, which is imported when one is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from shardwise.api.tasks import MAX_TASKS
from shardwise.sweep.space import Assigned, Parameter, Space, Value, uniform


class Algorithm(Protocol):
    """Gives trials their values. The order of calls decides what an adaptive one gives."""

    total: int
    """How many trials there are in all."""
    adaptive: bool
    """Whether results decide what later trials get."""

    @property
    def order(self) -> Sequence[int]:
        """The trials in the order in which they begin where results decide what comes next."""

    def begin(self, trial: int) -> None:
        """Begin the next trial of `order`."""

    def assigned(self, trial: int) -> Assigned:
        """The values of a trial that has begun, by parameter."""

    def value(self, trial: int, parameter: Parameter) -> Value | None:
        """One value of a trial that has begun; None: the parameter is left out."""

    def tell(self, trial: int, trained: int, values: Sequence[float] | None, *, last: bool) -> None:
        """What a stretch came to.

        Args:
            trial: whose.
            trained: epochs or steps that the trial has been trained for.
            values: the objectives, in order; None: it failed.
            last: whether that was all of the trial's training.
        """


class _Fixed:
    """What trials get does not depend on results."""

    adaptive = False

    def begin(self, trial: int) -> None:
        pass

    def tell(self, trial: int, trained: int, values: Sequence[float] | None, *, last: bool) -> None:
        pass


class Grid(_Fixed):
    """Every combination, numbered in the manifest's order.

    Raises:
        ValueError: there are more than `most`, or a range of floats has no points.
    """

    def __init__(self, space: Space, seed: int, most: int) -> None:
        self._seed = seed
        self._all = list(islice(space.grid(), most + 1))
        if len(self._all) > most:
            raise ValueError(
                f"the grid has more than maxTasks ({most}) combinations; "
                "raise maxTasks, or give fewer values"
            )
        self.total = len(self._all)

    @property
    def order(self) -> Sequence[int]:
        # Neighbours in a grid are alike. Where they come in order, trials get better and better
        # along some parameter, and nearly all are the best so far: ASHA would promote them.
        return sorted(range(self.total), key=lambda trial: uniform(self._seed, trial, "order"))

    def assigned(self, trial: int) -> Assigned:
        return dict(self._all[trial])

    def value(self, trial: int, parameter: Parameter) -> Value | None:
        return self._all[trial].get(parameter.name)


class Random(_Fixed):
    """Values at random, each trial's by itself."""

    def __init__(self, space: Space, seed: int, total: int) -> None:
        self._space, self._seed, self.total = space, seed, total
        self.order = range(total)

    def assigned(self, trial: int) -> Assigned:
        return self._space.random(self._seed, trial)

    def value(self, trial: int, parameter: Parameter) -> Value | None:
        return self._space.random_value(self._seed, trial, parameter)


def algorithm(tasks: Mapping[str, Any], space: Space) -> Algorithm:
    """The algorithm that a sweep names.

    Args:
        tasks: spec.tasks as JSON has it, with a sweep.
        space: the sweep's parameters.

    Raises:
        ValueError: the sweep lacks something that its algorithm needs.
    """
    sweep = tasks["sweep"]
    name, seed = sweep.get("algorithm", "Grid"), sweep.get("seed", 0)
    most = tasks.get("maxTasks")
    if name == "Grid":
        return Grid(space, seed, MAX_TASKS if most is None else most)
    if most is None:
        raise ValueError(f"{name} needs maxTasks: how many tasks are tried")
    if name == "Random":
        return Random(space, seed, most)
    # Half a second and 60 MB, for those sweeps alone.
    from shardwise.sweep.optuna_sampler import OptunaAlgorithm

    directions = [objective["direction"] for objective in tasks.get("objectives", ())]
    return OptunaAlgorithm(space, name, seed, most, directions)
