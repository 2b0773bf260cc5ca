"""The tasks of a job as stretches of training, in an order that follows from the spec and from the
results alone: not from the pool, nor from when its workers come, go and end.

Pure: whoever runs the stretches calls `next` and `tell`, and keeps `record`.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shardwise.api.tasks import MAX_VALUES
from shardwise.sweep.algorithms import Algorithm, algorithm
from shardwise.sweep.effort import Effort, Marks
from shardwise.sweep.lengths import Lengths
from shardwise.sweep.order import GivenOrder, Order, Plan, VirtualOrder
from shardwise.sweep.record import (
    Precision,
    Record,
    RecordError,
    Values,
    most_stretches,
)
from shardwise.sweep.space import Space, Value

PARALLELISM = 4
"""How many results the next suggestion does not wait for, where the spec does not say."""
REDUCTION_FACTOR = 3

State = Literal["Pending", "Running", "Waiting", "Succeeded", "Failed", "Stopped"]
"""`Waiting`: at a rung, and neither promoted nor out of the question."""


class AbandonedError(Exception):
    """Nobody wants the schedule any more that is being restored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One stretch of one task's training, to be run for real.

    Args:
        trial: the task's number, from 0.
        name: the task's name: `task-7`, or the list item's.
        assigned: values by sweep parameter; of a list item, its `parameters`.
        item: the list item as JSON has it; None: the task is of a sweep.
        rung: from 0; the last one ends the training.
        until: epochs or steps, whichever spec.trainer has, to train to; None: to the end.
        number: its place in the order of all stretches.
    """

    trial: int
    name: str
    assigned: Mapping[str, Value]
    item: Mapping[str, Any] | None
    rung: int
    until: int | None
    number: int


class Schedule:
    """The tasks of one job.

    Args:
        tasks: spec.tasks as JSON has it; what is absent has its default.
        trainer: spec.trainer as JSON has it.

    Raises:
        ValueError: they contradict each other in a way that validation should have refused.
    """

    def __init__(self, tasks: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
        self._list: Sequence[Mapping[str, Any]] | None = tasks.get("list")
        self._directions = [item["direction"] for item in tasks.get("objectives") or ()]
        self._algorithm: Algorithm | None = None
        self._marks: Marks | None = None
        self._order: Order
        if self._list is not None:
            self.total = most = len(self._list)
            self._order = GivenOrder(range(self.total))
        else:
            space = Space(tasks["sweep"]["parameters"])
            self._algorithm = algorithm(tasks, space)
            self.total = most = self._algorithm.total
            lengths = Lengths(self._algorithm, space, trainer)
            stopping = tasks["sweep"].get("earlyStopping")
            if stopping:
                factor = stopping.get("reductionFactor", REDUCTION_FACTOR)
                rungs = stopping["rungs"]
                most = most_stretches(self.total, len(rungs), factor)
                self._marks = Marks(rungs, lengths.shortest, factor, self.total)
            if stopping or self._algorithm.adaptive:
                self._order = _virtual(tasks, self._algorithm, lengths, self._directions, most)
            else:
                self._order = GivenOrder(lengths.longest_first(self.total))
        if self.total * len(self._directions) > MAX_VALUES:
            raise ValueError(
                f"{self.total} tasks with {len(self._directions)} objectives are more than "
                f"{MAX_VALUES} values: give fewer of either"
            )
        self._precision = Precision.of(most, len(self._directions))
        self._begun: list[Plan] = []
        self._ready: Plan | None = None
        self._asked_at = -1
        """With how many results it was found out that there is no next one for now."""
        self._results: dict[int, Values | None] = {}
        self._begun_to: Counter[int] = Counter()
        self._ended_at: Counter[int] = Counter()
        """Stretches by rung."""
        self._newest: dict[int, int] = {}
        """By trial, the number of the stretch that was begun last."""
        self._values: dict[int, Values] = {}
        """By trial, the newest results."""
        self._check = 0
        """A checksum of what an adaptive algorithm suggested."""
        self._record: str | None = None

    def next(self) -> Stretch | None:
        """The next stretch to begin. None: it waits for results, or there is no more."""
        plan = self._peek()
        if plan is None:
            return None
        self._ready = self._record = None
        self._asked_at = -1
        return self._stretch(self._begin(plan))

    @property
    def undecided(self) -> bool:
        """Whether `next` would have to ask an algorithm that takes long where there are many
        results: `decide` does that, if need be in another thread."""
        adaptive = self._algorithm is not None and self._algorithm.adaptive
        return adaptive and self._ready is None and self._asked_at != len(self._results)

    def decide(self) -> None:
        """Work out what `next` will give. It may run in another thread, while in this one no more
        is called than `undecided`, `tell`, `record`, `effort`, `reached` and `assigned`."""
        self._peek()

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """What a stretch came to. Telling again changes nothing.

        Args:
            number: the stretch's.
            values: the objectives in order; None, or a NaN among them: it failed. They are
                rounded to float32, or to fewer digits where there can be more than 11,000
                values in all (`record.Precision`), so that they fit into the record.

        Raises:
            ValueError: no such stretch was begun, or the number of values is wrong.
        """
        if not 0 <= number < len(self._begun):
            raise ValueError(f"stretch {number} was not begun; {len(self._begun)} were")
        if values is not None and len(values) != len(self._directions):
            raise ValueError(
                f"stretch {number} has {len(values)} values for {len(self._directions)} objectives"
            )
        if number in self._results:
            return
        self._record = None
        if values is None or any(math.isnan(value) for value in values):
            self._take(number, None)
        else:
            self._take(number, tuple(self._precision.round(value) for value in values))

    @property
    def exhausted(self) -> bool:
        """Whether `next` will never give another one, and all results are told."""
        return self._peek() is None and self._order.idle and len(self._results) == len(self._begun)

    def stopped(self, trial: int) -> bool:
        """Whether a trial was ended by early stopping: it can never be promoted any more."""
        return self.state(trial) == "Stopped"

    def state(self, trial: int) -> State:
        """Where a trial stands."""
        number = self._newest.get(trial)
        if number is None:
            return "Pending"
        if number not in self._results:
            return "Running"
        if self._results[number] is None:
            return "Failed"
        if self._begun[number].until is None:
            return "Succeeded"
        # First what has come to be known, then what follows from it.
        return "Stopped" if self.exhausted or self._order.stopped(trial) else "Waiting"

    def values(self, trial: int) -> Values | None:
        """The newest results of a trial, as they were rounded, at whatever rung; of one that
        failed later, those before. None: there are none."""
        return self._values.get(trial)

    def told(self) -> list[tuple[Stretch, Values | None]]:
        """The stretches that have results, and these, by number."""
        return [(self._stretch(number), self._results[number]) for number in sorted(self._results)]

    def name(self, trial: int) -> str:
        """A task's name."""
        return f"task-{trial}" if self._list is None else str(self._list[trial]["name"])

    def assigned(self, trial: int) -> Mapping[str, Value]:
        """A task's values by sweep parameter; of a list item, its `parameters`.

        Raises:
            KeyError: TPE or NSGA2 have not suggested it yet.
        """
        if self._list is not None:
            return dict(self._list[trial].get("parameters") or {})
        assert self._algorithm is not None
        return self._algorithm.assigned(trial)

    @property
    def effort(self) -> Effort | None:
        """The training that is done and that is expected, where early stopping decides on it."""
        if self._marks is None:
            return None
        return self._marks.effort(self._begun_to, self._ended_at)

    def reached(self, stretch: Stretch, part: float) -> float:
        """Epochs or steps that a stretch has added to its trial's training, of which this part (0
        to 1 of the whole training) is done; 0 where there is no early stopping."""
        return 0.0 if self._marks is None else self._marks.reached(stretch.rung, part)

    def record(self) -> str:
        """What was begun and what it came to, as text of at most 64 KiB, for `restore`."""
        if self._record is None:
            record = Record(len(self._begun), self._results, self._check)
            self._record = record.encode(self._precision, len(self._directions))
        return self._record

    @classmethod
    def restore(
        cls,
        tasks: Mapping[str, Any],
        trainer: Mapping[str, Any],
        record: str,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> tuple[Schedule, tuple[Stretch, ...]]:
        """A schedule as it was when it gave the record, and what is to be done first: the
        stretches that were begun and have no result, by number.

        Args:
            tasks, trainer: as the first schedule's.
            record: what it gave.
            abandoned: asked before each stretch whether nobody waits for the schedule any more:
                with TPE or NSGA2 it may take minutes.

        Raises:
            AbandonedError: it was abandoned.
            RecordError: the record is damaged or of another spec; or what it replays to differs,
                because another version of Optuna suggests other values.
        """
        schedule = cls(tasks, trainer)
        kept = Record.decode(record, schedule._precision, len(schedule._directions))
        for number in range(kept.begun):
            if abandoned():
                raise AbandonedError
            plan = schedule._order.next(kept.results)
            if plan is None:
                raise RecordError(
                    f"the record of the tasks has {kept.begun} stretches, and the spec gives "
                    f"{number}: it is of another spec or version"
                )
            schedule._begin(plan)
        for number, values in kept.results.items():
            schedule._take(number, values)
        if schedule._check != kept.check:
            raise RecordError(
                "the tasks suggested anew differ from those in the record: it was written with "
                "another version of Optuna, or on another type of CPU"
            )
        open_ones = [n for n in range(kept.begun) if n not in kept.results]
        return schedule, tuple(schedule._stretch(number) for number in open_ones)

    def _peek(self) -> Plan | None:
        if self._ready is None:
            # Results may come meanwhile, from another thread; those that it saw count alone.
            seen = len(self._results)
            plan = None if self._asked_at == seen else self._order.next(self._results)
            if plan is None:
                self._asked_at = seen
            else:
                self._ready = plan
        return self._ready

    def _begin(self, plan: Plan) -> int:
        number = len(self._begun)
        self._begun.append(plan)
        self._begun_to[plan.rung] += 1
        self._newest[plan.trial] = number
        if self._algorithm is not None and self._algorithm.adaptive and not plan.rung:
            suggested = repr(sorted(self.assigned(plan.trial).items()))
            self._check = zlib.crc32(suggested.encode(), self._check)
        return number

    def _take(self, number: int, values: Values | None) -> None:
        self._results[number] = values
        self._ended_at[self._begun[number].rung] += 1
        if values is not None:
            self._values[self._begun[number].trial] = values

    def _stretch(self, number: int) -> Stretch:
        plan = self._begun[number]
        return Stretch(
            trial=plan.trial,
            name=self.name(plan.trial),
            assigned=self.assigned(plan.trial),
            item=None if self._list is None else self._list[plan.trial],
            rung=plan.rung,
            until=plan.until,
            number=number,
        )


def _virtual(
    tasks: Mapping[str, Any],
    algorithm: Algorithm,
    lengths: Lengths,
    directions: Sequence[str],
    most: int,
) -> VirtualOrder:
    stopping = tasks["sweep"].get("earlyStopping") or {}
    rungs = stopping.get("rungs", ())
    if rungs and not directions:
        raise ValueError("earlyStopping needs an objective")
    if rungs and rungs[-1] >= lengths.shortest:
        raise ValueError(
            f"earlyStopping.rungs has {rungs[-1]}, and the shortest task has {lengths.shortest} "
            f"{lengths.unit}: give rungs below it"
        )
    return VirtualOrder(
        algorithm,
        lengths,
        rungs,
        stopping.get("reductionFactor", REDUCTION_FACTOR),
        tasks.get("parallelism") or PARALLELISM,
        directions,
        most,
    )
