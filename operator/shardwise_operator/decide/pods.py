"""Which pods to create: the indices that have none, and only before training has begun.

A worker that is gone after the first generation is a loss (see `outcome`), never a vacancy.
"""

from __future__ import annotations

from shardwise_operator.observe import Observed


def vacant_indices(observed: Observed, desired: int, generation: int) -> tuple[int, ...]:
    """Indices to create a pod for; none while it is uncertain whether training has begun."""
    if generation > 0:
        return ()
    taken = {pod.index for pod in observed.pods}
    vacant = tuple(index for index in range(desired) if index not in taken)
    if taken and vacant and not observed.settled and any(pod.running for pod in observed.pods):
        # Just after the operator's start, running workers may be in a generation that it has not
        # heard of yet.
        return ()
    return vacant
