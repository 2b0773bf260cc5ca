"""Which pods to create and which to delete, so that there are as many as are wanted.

An index is free when no pod has it, not even one that is being deleted: a pod that is stuck on a
dead node keeps its index, and its replacement takes the next free one at once; so does a pod that
is left of an earlier job of the same name. Pure.
"""

from __future__ import annotations

from itertools import count, islice

from shardwise_operator.observe import Observed, PodView


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


def unreachable(observed: Observed) -> tuple[PodView, ...]:
    """Living pods on a dead node, which the coordinator has no connection to either."""
    if observed.report is None or not observed.settled:
        return ()
    connected = set(observed.report.connected)
    return tuple(
        pod for pod in observed.pods if pod.living and pod.node_lost and pod.name not in connected
    )
