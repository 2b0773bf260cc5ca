"""Whose answer is awaited for too long: the members that are to be asked how they are. Pure.

Of a running group, once one of them has a suspicion, all that are there. Of one that forms, who has
not acked: newcomers soon after it was issued, members of the running group only from when the first
of them has reached the step boundary.
"""

from __future__ import annotations

from collections.abc import Collection

from shardwise.coordinator.membership import Round

ACK_SECONDS = 0.25
"""From a generation, or from the boundary, to the first probe of who has not acked."""


def overdue_from(
    running: Round | None, forming: Round | None, boundary: float | None
) -> float | None:
    """From when on an ack is overdue; None if none will be.

    Args:
        boundary: when the first of the running group has acked; None if none has.
    """
    if forming is None or not forming.missing:
        return None
    if running is None or any(worker not in running.members for worker in forming.missing):
        return forming.since + ACK_SECONDS
    return None if boundary is None else boundary + ACK_SECONDS


def unacked(
    running: Round | None, forming: Round | None, boundary: float | None, now: float
) -> list[str]:
    """Whose ack of the forming generation is overdue."""
    if forming is None:
        return []
    reached = boundary is not None and now >= boundary + ACK_SECONDS
    return [
        worker
        for worker in forming.missing
        if running is None or reached or worker not in running.members
    ]


def suspected(running: Round, forming: Round | None, there: Collection[str]) -> list[str]:
    """The running group's members that are to be asked where one waits for too long.

    Args:
        there: the connected workers.
    """
    acked = forming.acks if forming is not None else {}
    return [
        worker
        for worker in running.members
        if worker in there and worker not in running.gone and worker not in acked
    ]
