"""What a watcher has seen of a job so far. Fed with the API's watch events; does no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardwise.cli.names import JOB_UID
from shardwise.cli.view.fields import Object, number, pick, text

LOSSES = 4096
RECOVERIES = 64


@dataclass
class Sight:
    """A job, its pods and its Events as last seen, and what only a witness knows: the course of
    the loss, and each recovery."""

    job: Object | None = None
    deleted: bool = False
    pods: dict[str, Object] = field(default_factory=dict)
    events: dict[str, Object] = field(default_factory=dict)
    losses: list[tuple[float, float]] = field(default_factory=list)
    """(step, loss) as they were told, oldest first; steps only grow."""
    recoveries: list[Object] = field(default_factory=list)
    """Each status.lastRecovery that was seen, oldest first."""
    trouble: str = ""
    """Why what is shown may be old: the API server does not answer."""

    def take_job(self, kind: str, found: Object) -> None:
        """A watch event of the job: ADDED, MODIFIED or DELETED."""
        if self.job is not None and text(self.job, "metadata.uid") != text(found, "metadata.uid"):
            if kind == "DELETED":  # The end of one that has been replaced already.
                return
            self.losses.clear()  # Another job of the same name.
            self.recoveries.clear()
        self.deleted = kind == "DELETED"
        self.job = found
        self._note_loss(found)
        self._note_recovery(found)

    def take_pod(self, kind: str, found: Object) -> None:
        _take(self.pods, kind, found)

    def take_event(self, kind: str, found: Object) -> None:
        _take(self.events, kind, found)

    def own_pods(self) -> list[Object]:
        """The pods of this very job, not of an earlier one of its name."""
        return _of(self.job, self.pods, "metadata.labels", JOB_UID)

    def own_events(self) -> list[Object]:
        return _of(self.job, self.events, "involvedObject", "uid")

    def _note_loss(self, job: Object) -> None:
        step, loss = number(job, "status.progress.step"), number(job, "status.progress.loss")
        if step is None or loss is None:
            return
        # After a step back (all workers lost) the course goes on from there.
        while self.losses and self.losses[-1][0] >= step:
            self.losses.pop()
        self.losses.append((step, loss))
        if len(self.losses) > LOSSES:  # Every other one of the older half is enough.
            half = LOSSES // 2
            self.losses[:half] = self.losses[:half:2]

    def _note_recovery(self, job: Object) -> None:
        last = pick(job, "status.lastRecovery")
        if isinstance(last, Mapping) and (not self.recoveries or self.recoveries[-1] != last):
            self.recoveries = [*self.recoveries[1 - RECOVERIES :], last]

    def finite_losses(self) -> list[float]:
        return [loss for _, loss in self.losses if math.isfinite(loss)]


def _take(known: dict[str, Object], kind: str, found: Object) -> None:
    name = text(found, "metadata.name")
    if kind == "DELETED":
        known.pop(name, None)
    else:
        known[name] = found


def _of(job: Object | None, found: dict[str, Object], path: str, key: str) -> list[Object]:
    uid = text(job, "metadata.uid")

    def owner(item: Object) -> Any:
        return (pick(item, path) or {}).get(key)

    return [item for item in found.values() if not uid or owner(item) in (None, uid)]
