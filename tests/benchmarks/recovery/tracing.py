"""What workers wrote into the trace, read as it grows."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """What a system did under its blows."""

    seconds: list[float]
    """From each blow to the next new step."""
    step_seconds: float
    """A usual step: the median."""


class Trace:
    """The trace file of one run."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._reached = path, 0, -1
        self._pids: set[int] = set()
        self._moments: list[float] = []
        self.steps = 0
        """Steps that were new since the last `forget`."""

    def news(self) -> list[tuple[float, int]]:
        """(time, step) of each step that was reached for the first time since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        found = []
        for line in complete.decode().splitlines():
            at, step, pid = line.split()
            self._pids.add(int(pid))
            if int(step) > self._reached:
                self._reached = int(step)
                found.append((float(at), int(step)))
        self.steps += len(found)
        self._moments += [at for at, _ in found]
        return found

    def measured(self, seconds: list[float]) -> Measured:
        """With the usual step of all that has been read."""
        gaps = [after - before for before, after in itertools.pairwise(self._moments)]
        return Measured(seconds, statistics.median(gaps))

    def pids(self) -> set[int]:
        """The processes that have written since the last `forget`."""
        return set(self._pids)

    def forget(self) -> None:
        self.news()
        self._pids.clear()
        self.steps = 0
