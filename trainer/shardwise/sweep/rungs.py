"""ASHA's rule of promotion: which trial's training goes on, and which has ended.

Pure. Asynchronous successive halving after Li et al. 2020 ("A System for Massively Parallel
Hyperparameter Tuning"), Algorithm 2, `get_job`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush

_Key = tuple[bool, float, int]
"""A result's place among those of its rung: whether it failed, its cost, its trial."""


class _Rung:
    """The results at one rung. Every operation takes O(log n) amortised."""

    def __init__(self, factor: int) -> None:
        self._factor = factor
        self.results = 0
        self.promoted: set[int] = set()
        self.most = 0
        """The most results that there can ever be."""
        self.alive = 0
        """How many results may still be promoted."""
        # The best floor(n / factor) results, worst first; the others, best first.
        self._top: list[_Key] = []
        self._rest: list[_Key] = []
        self._inside: set[int] = set()
        # Best first; may hold some that have left the top since, or were promoted.
        self._candidates: list[_Key] = []
        # Those that can ever be among the top, worst first.
        self._kept: list[_Key] = []
        # All, best first; some may have been promoted since.
        self._ranking: list[_Key] = []

    def add(self, key: _Key) -> None:
        self.results += 1
        heappush(self._ranking, key)
        heappush(self._kept, _reverse(key))
        self.alive += not key[0]
        if self._top and key < _reverse(self._top[0]):
            worst = _reverse(heappop(self._top))
            self._inside.discard(worst[2])
            heappush(self._rest, worst)
            self._enter(key)
        else:
            heappush(self._rest, key)
        while len(self._top) < self.results // self._factor:
            self._enter(heappop(self._rest))

    def promote(self) -> int | None:
        """The best trial in the top that was not promoted yet; it counts as promoted now."""
        while self._candidates:
            trial = heappop(self._candidates)[2]
            if trial in self._inside and trial not in self.promoted:
                self.promoted.add(trial)
                self.alive -= 1
                return trial
        return None

    def rescue(self) -> int | None:
        """The best trial that was not promoted, be it in the top or not; it counts as promoted."""
        while self._ranking and self._ranking[0][2] in self.promoted:
            heappop(self._ranking)
        if not self._ranking or self._ranking[0][0]:
            return None
        trial = self._ranking[0][2]
        self.promoted.add(trial)
        return trial

    def trim(self) -> Iterator[int]:
        """The trials that cannot be promoted any more, each told once: with all results that
        there can be, they would not be among the top."""
        while len(self._kept) > self.most // self._factor:
            failed, _, trial = _reverse(heappop(self._kept))
            if not failed and trial not in self.promoted:
                self.alive -= 1
                yield trial

    def _enter(self, key: _Key) -> None:
        heappush(self._top, _reverse(key))
        self._inside.add(key[2])
        if not key[0] and key[2] not in self.promoted:
            heappush(self._candidates, key)


class Rungs:
    """The rungs of a sweep.

    Args:
        count: how many rungs there are before the end of the training.
        factor: of how many results the best one is promoted.
        trials: how many trials there are in all.
    """

    def __init__(self, count: int, factor: int, trials: int) -> None:
        self._rungs = [_Rung(factor) for _ in range(count)]
        self._trials = trials
        self.stopped: set[int] = set()
        """Trials that can never be promoted any more."""

    def add(self, rung: int, trial: int, cost: float | None) -> None:
        """A result at a rung.

        Args:
            rung: which, from 0; at the one after the last nothing is to be decided.
            trial: whose; of equal ones the lower is better.
            cost: less is better; None: it failed, ranks last, and is never promoted.
        """
        if rung >= len(self._rungs):
            return
        key = (True, math.inf, trial) if cost is None else (False, cost, trial)
        self._rungs[rung].add(key)
        most = self._trials
        for level in self._rungs:
            level.most = most
            self.stopped.update(level.trim())
            # Whoever was, may be, or comes and may be promoted.
            most = len(level.promoted) + level.alive + (level.most - level.results)

    def promote(self) -> tuple[int, int] | None:
        """The trial to go on with and the rung that it goes to; None: none can be promoted."""
        for index in reversed(range(len(self._rungs))):
            trial = self._rungs[index].promote()
            if trial is not None:
                return trial, index + 1
        return None

    def rescue(self) -> tuple[int, int] | None:
        """As `promote`, by the best result at the highest rung, whatever the factor says: a sweep
        of fewer trials than the factor would end without a trained model. For when all else is
        done; a trial of `stopped` may come back by it."""
        for index in reversed(range(len(self._rungs))):
            trial = self._rungs[index].rescue()
            if trial is not None:
                return trial, index + 1
        return None


def _reverse(key: _Key) -> _Key:
    return (not key[0], -key[1], -key[2])
