"""How much training a sweep with early stopping comes to.

Pure. A stretch to rung k adds the epochs (or steps) from rung k - 1 to rung k; the last one goes to
the end. With reduction factor f, N trials lead to floor(N / f^k) stretches to rung k, but no fewer
than were begun already, and no fewer than one: the best trial is trained to its end in any case.
So the whole is

    sum over k of max(floor(N / f^k), begun to rung k, 1) * (rung k - rung k-1)

and what is left of it is the whole less what was done. It is an estimate: how many trials are
promoted beyond 1 in f depends on the order in which they come out well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """What was done and what the whole comes to, in epochs or steps, as the trainer has it.

    Args:
        done: by the stretches that have ended.
        whole: by all that are expected.
        full: by one trial that is trained to its end.
    """

    done: float
    whole: float
    full: float


class Marks:
    """The rungs of a sweep and its end: where its stretches end.

    Args:
        rungs: epochs or steps, increasing.
        end: those of a whole training.
        factor: of how many trials at a rung one goes on.
        trials: how many there are.
    """

    def __init__(self, rungs: Sequence[int], end: int, factor: int, trials: int) -> None:
        self._marks = (0, *rungs, end)
        self._factor, self._trials = factor, trials

    def added(self, rung: int) -> int:
        """What a stretch to this rung adds."""
        return self._marks[rung + 1] - self._marks[rung]

    def reached(self, rung: int, part: float) -> float:
        """What a stretch to this rung has added when this part of the whole training is done."""
        return min(max(0.0, part * self._marks[-1] - self._marks[rung]), self.added(rung))

    def effort(self, begun: Counter[int], ended: Counter[int]) -> Effort:
        """What the stretches come to.

        Args:
            begun: how many stretches were begun, by rung.
            ended: how many have a result.
        """
        levels = range(len(self._marks) - 1)
        usual = (max(1, begun[k], self._trials // self._factor**k) for k in levels)
        return Effort(
            done=sum(ended[k] * self.added(k) for k in levels),
            whole=sum(count * self.added(k) for k, count in zip(levels, usual, strict=True)),
            full=self._marks[-1],
        )
