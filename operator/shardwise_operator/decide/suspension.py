"""A suspended job: its workers leave at a step boundary, with a checkpoint, and then their pods go.

The wait for them is bounded, by the time since training was told to stop, which is in the status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shardwise_operator.observe import Observed, PodView

LEAVE_WAIT = timedelta(seconds=60)
"""For the step under way and a checkpoint; after that pods are deleted, which gives them their
grace period on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """How far the suspension is."""

    delete: tuple[PodView, ...]
    left: int
    """Workers that are still there."""
    drain: bool
    """Workers are to be asked to leave."""
    requeue: timedelta | None

    @property
    def done(self) -> bool:
        return self.left == 0


def suspension(observed: Observed, since: datetime | None) -> Suspension:
    """What to do about the pods; `since` is when training stopped to be wanted."""
    waited = observed.now - (since or observed.now - LEAVE_WAIT)
    late = waited >= LEAVE_WAIT
    there = [pod for pod in observed.pods if not pod.deleting]
    running = [pod for pod in there if pod.running]
    delete = [pod for pod in there if late or not pod.running or _unheard(observed, pod)]
    return Suspension(
        delete=tuple(delete),
        left=len(there),
        drain=bool(running),
        requeue=LEAVE_WAIT - waited if running and not late else None,
    )


def _unheard(observed: Observed, pod: PodView) -> bool:
    """A running pod that is no member of any group has nothing to finish."""
    report = observed.report
    return report is not None and observed.settled and pod.name not in report.connected


def stuck(pods: Sequence[PodView]) -> int:
    """Pods that are still being deleted."""
    return sum(pod.deleting for pod in pods)
