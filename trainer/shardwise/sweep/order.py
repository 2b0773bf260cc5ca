"""In which order stretches of training begin: given, or decided by results in virtual time.

Pure. An order gives one plan after another; a plan's number is its place among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from shardwise.sweep.algorithms import Algorithm
from shardwise.sweep.lengths import Lengths
from shardwise.sweep.ranking import costs
from shardwise.sweep.rungs import Rungs

Results = Mapping[int, Sequence[float] | None]
"""The objectives of what has ended, by number; None: it failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A stretch to begin.

    Args:
        trial: whose.
        rung: where it ends; the last one ends the training.
        until: epochs or steps to train to; None: to the end.
    """

    trial: int
    rung: int
    until: int | None


class Order(Protocol):
    """Gives plans, each once."""

    @property
    def idle(self) -> bool:
        """Whether no result is waited for that could lead to a further plan."""

    def next(self, results: Results) -> Plan | None:
        """The next plan; None: it needs a result that is not there, or there is none."""

    def stopped(self, trial: int) -> bool:
        """Whether the trial has ended because it can never be promoted."""


class GivenOrder:
    """An order that no result changes."""

    idle = True

    def __init__(self, trials: Sequence[int]) -> None:
        self._trials = trials
        self._begun = 0

    def next(self, results: Results) -> Plan | None:
        if self._begun == len(self._trials):
            return None
        self._begun += 1
        return Plan(self._trials[self._begun - 1], 0, None)

    def stopped(self, trial: int) -> bool:
        return False


class VirtualOrder:
    """The order of a pool that does `parallelism` stretches at once and needs one unit of time
    for each epoch (or step). What a real pool does, in whatever order, does not show in it: the
    next plan is decided when the stretch that ends first in virtual time (of equal ones the one
    begun first) has its result, and results become known in that order.

    Args:
        algorithm: gives new trials their values.
        length: epochs or steps that a trial that has begun has in all.
        rungs: epochs or steps at which a trial waits for its promotion, increasing.
        factor: ASHA's reduction factor.
        parallelism: how many stretches are under way at once.
        directions: of the objectives.
        most: how many stretches there may be; new trials come before promotions then.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        length: Lengths,
        rungs: Sequence[int],
        factor: int,
        parallelism: int,
        directions: Sequence[str],
        most: int,
    ) -> None:
        self._algorithm, self._length = algorithm, length
        self._at = tuple(rungs)
        self._rungs = Rungs(len(rungs), factor, algorithm.total)
        self._parallelism, self._directions = parallelism, directions
        self._most = most
        self._now = 0
        self._plans: list[Plan] = []
        self._new = 0
        self._order = algorithm.order
        self._trained_one = False
        """Whether a trial has been trained to its end."""
        # (virtual end, number) of the stretches under way.
        self._slots: list[tuple[int, int]] = []

    @property
    def idle(self) -> bool:
        return not self._slots

    def next(self, results: Results) -> Plan | None:
        while True:
            if len(self._slots) < self._parallelism and (plan := self._job()) is not None:
                heappush(self._slots, (self._now + self._added(plan), len(self._plans)))
                self._plans.append(plan)
                return plan
            if not self._slots or self._slots[0][1] not in results:
                return None
            self._now, number = heappop(self._slots)
            self._tell(self._plans[number], results[number])

    def stopped(self, trial: int) -> bool:
        # Until then, whichever is best may yet be trained to its end.
        return self._trained_one and trial in self._rungs.stopped

    def _job(self) -> Plan | None:
        """ASHA's `get_job`: a promotion, or else a new trial, or else nothing for now."""
        new = self._algorithm.total - self._new
        room = len(self._plans) + new < self._most
        if room and (promoted := self._rungs.promote()) is not None:
            return self._plan(*promoted)
        if new:
            trial = self._order[self._new]
            self._new += 1
            self._algorithm.begin(trial)
            return self._plan(trial, 0)
        over = not self._slots and not self._trained_one
        rescued = self._rungs.rescue() if over and room else None
        return None if rescued is None else self._plan(*rescued)

    def _plan(self, trial: int, rung: int) -> Plan:
        return Plan(trial, rung, self._at[rung] if rung < len(self._at) else None)

    def _trained(self, plan: Plan) -> int:
        return self._length(plan.trial) if plan.until is None else plan.until

    def _added(self, plan: Plan) -> int:
        return self._trained(plan) - (self._at[plan.rung - 1] if plan.rung else 0)

    def _tell(self, plan: Plan, values: Sequence[float] | None) -> None:
        self._trained_one |= plan.until is None and values is not None
        if self._at:
            cost = None if values is None else costs(values, self._directions)[0]
            self._rungs.add(plan.rung, plan.trial, cost)
        self._algorithm.tell(plan.trial, self._trained(plan), values, last=plan.until is None)
