"""Which pods to create and which to delete, so that there are as many as are wanted.

An index is free when no pod has it, not even one that is being deleted: a pod that is stuck on a
dead node keeps its index, and its replacement takes the next free one at once; so does a pod that
is not the job's and has the name, be it left of an earlier job or somebody else's. Pure.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import count, islice

from shardwise_operator.observe import Observed, PodView

HEED_WAIT = timedelta(seconds=60)
"""A kubelet takes note of a pod at once. The scheduler gives pods to a dead node until the node
controller has noticed, after 40 to 50 seconds; by then their replacements go elsewhere."""


def vacant_indices(observed: Observed, wanted: int) -> tuple[int, ...]:
    """Indices to create a pod for, the lowest free ones. An ended pod keeps its place until it
    is deleted, which is how its replacement is put off."""
    missing = wanted - sum(not pod.deleting for pod in observed.pods)
    taken = {pod.index for pod in observed.pods} | observed.taken
    free = (index for index in count() if index not in taken)
    return tuple(islice(free, max(missing, 0)))


def surplus(observed: Observed, desired: int, standby: int) -> tuple[PodView, ...]:
    """Living pods beyond those wanted: those that do not run yet first; then the members that the
    coordinator lets go of itself, the last ones by rank; then by index, the highest first."""
    report = observed.report
    members = report.members if report else ()
    leaving = set(members[max(desired, 0) :])
    if report is not None and report.tasks is not None:
        leaving = set(report.standbys)  # a pool's workers that are at no task

    def last_to_go(pod: PodView) -> tuple[bool, bool, int]:
        return not pod.running, pod.name in leaving, pod.index

    living = sorted((pod for pod in observed.pods if pod.living), key=last_to_go)
    return tuple(living[max(desired + standby, 0) :])


def unheeded(observed: Observed) -> tuple[tuple[PodView, ...], timedelta | None]:
    """Living pods that their node has taken no note of for too long, as a dead one does not; and
    the time until the next one is to be counted in. Kubernetes itself waits five minutes."""
    waits = [
        (pod, HEED_WAIT - (observed.now - pod.given_at))
        for pod in observed.pods
        if pod.living and pod.given_at is not None
    ]
    over = tuple(pod for pod, wait in waits if wait <= timedelta())
    return over, min((wait for _, wait in waits if wait > timedelta()), default=None)


def unreachable(observed: Observed) -> tuple[PodView, ...]:
    """Living pods on a dead node, which the coordinator has no connection to either."""
    if observed.report is None or not observed.settled:
        return ()
    connected = set(observed.report.connected)
    return tuple(
        pod for pod in observed.pods if pod.living and pod.node_lost and pod.name not in connected
    )
