"""Exchanges that break although nobody died: when to try again, and whom to leave out.

Each generation that breaks before a step is done doubles the wait before the next. A worker is left
out for a while that hung, that its peers could not reach in two generations in a row, or that did
not answer for the second time since a step was done. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

REGROUP_SECONDS = 0.05
"""From a fault to the new generation: time for the cause, e.g. a death, to show as well."""
REGROUP_LIMIT_SECONDS = 5.0
BAR_SECONDS = 5.0
BAR_LIMIT_SECONDS = 60.0
ATTEMPTS_LIMIT = 1000
"""Generations in a row that may break before a step is done: more than an hour of them."""


class Trouble:
    """The faults of one group."""

    def __init__(self) -> None:
        self.attempts = 0
        """Generations in a row that broke without a step done."""
        self.last = ""
        """The last fault, in words."""
        self._step = 0
        self._blamed: dict[str, set[str]] = {}
        self._blamed_before: frozenset[str] = frozenset()
        self._barred: dict[str, tuple[float, int]] = {}
        self._silent: set[str] = set()

    def delay(self) -> float:
        """Seconds from a fault to the next generation."""
        return min(REGROUP_SECONDS * 2.0 ** min(self.attempts, 30), REGROUP_LIMIT_SECONDS)

    def fault(self, worker: str, peer: str | None, message: str) -> None:
        """A worker's exchange broke, and `peer` is whom it was cut off from."""
        self.last = f"{worker}: {message}"
        if peer is not None and peer != worker:
            self._blamed.setdefault(peer, set()).add(worker)

    def broke(self, members: Sequence[str]) -> str | None:
        """A generation has broken, all its faults are known: who is to be left out, if anybody.

        Of those that were blamed twice in a row the one that most peers blame, since a worker that
        nobody reaches blames its peers as well; of equals the last.

        Args:
            members: who is in the group, by rank.
        """
        self.attempts += 1
        twice = [
            (len(self._blamed[worker]), rank, worker)
            for rank, worker in enumerate(members)
            if worker in self._blamed and worker in self._blamed_before
        ]
        worst = max(twice)[2] if twice else None
        self._blamed_before = frozenset(self._blamed)
        self._blamed.clear()
        return worst

    def silent(self, worker: str) -> bool:
        """A worker did not answer; whether it is for the second time since a step was done."""
        again = worker in self._silent
        self._silent.add(worker)
        return again

    def bar(self, worker: str, now: float) -> float:
        """Leave a worker out from now on, each time for longer; until when."""
        times = self._barred.get(worker, (0.0, 0))[1]
        until = now + min(BAR_SECONDS * 2.0 ** min(times, 30), BAR_LIMIT_SECONDS)
        self._barred[worker] = until, times + 1
        return until

    def barred(self, now: float) -> frozenset[str]:
        """Who is left out now."""
        return frozenset(worker for worker, (until, _) in self._barred.items() if now < until)

    def release_at(self, now: float, workers: Iterable[str]) -> float | None:
        """When the next of these workers may come in again; None if none is left out."""
        times = [self._barred[worker][0] for worker in workers if worker in self._barred]
        return min((until for until in times if now < until), default=None)

    def went(self, step: int, members: Collection[str]) -> None:
        """A generation got its go at this step."""
        if step > self._step:
            self.attempts = 0
            self._blamed_before = frozenset()
            self._silent.clear()
            for worker in members:
                self._barred.pop(worker, None)
        self._step = step
        self._blamed.clear()
