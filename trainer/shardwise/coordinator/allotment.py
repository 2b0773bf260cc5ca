"""How a pool's workers are dealt out over its tasks. Pure.

Many small groups while tasks queue: a task on one worker wastes nothing on exchanges. When no task
is left to begin, idle workers join the tasks under way, the smallest group first, where what is
left of the task is worth the joining. When a task comes up and nobody is idle, the largest group
gives a worker away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

JOIN_SECONDS = 3.0
"""What must be left of a task for another worker to join it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The workers of one task under way."""

    wanted: int
    """How many its group is to have."""
    there: int
    """How many were placed in it."""
    left_seconds: float | None
    """How long it is expected to take yet; None: not known."""


def sizes(tasks: int, idle: int, most: int, fixed: int | None) -> tuple[int, ...]:
    """The sizes of the groups of new tasks, in their order; as many as can begin now.

    Args:
        tasks: that may begin.
        idle: workers that have nothing to do.
        most: workers that one task can use.
        fixed: how many each is to have; None: as it comes out.
    """
    if fixed is not None:
        return (fixed,) * min(tasks, idle // fixed)
    groups = min(tasks, idle)
    if groups == 0:
        return ()
    if tasks > groups:
        return (1,) * groups  # the next ones wait already
    each, more = divmod(idle, groups)
    return tuple(min(most, each + (place < more)) for place in range(groups))


def short(crews: Mapping[str, Crew]) -> str | None:
    """The task that lacks a worker most: one that has none, then one that has lost some."""
    lacking = [(crew.there > 0, key) for key, crew in crews.items() if crew.there < crew.wanted]
    return min(lacking)[1] if lacking else None


def growing(crews: Mapping[str, Crew], most: int) -> str | None:
    """The task that an idle worker is best added to: the smallest group's, of equal ones that with
    the most left; None where none is worth it, or where the smallest has yet to tell."""
    worth = [
        (crew.wanted, -(math.inf if crew.left_seconds is None else crew.left_seconds), key)
        for key, crew in crews.items()
        if crew.wanted < most and (crew.left_seconds is None or crew.left_seconds > JOIN_SECONDS)
    ]
    if not worth:
        return None
    key = min(worth)[2]
    return None if crews[key].left_seconds is None else key


def giving(crews: Mapping[str, Crew]) -> str | None:
    """The task that can give a worker away for another one: that with the most, if two or more."""
    rich = [(-crew.wanted, key) for key, crew in crews.items() if crew.wanted > 1]
    return min(rich)[1] if rich else None


def pick(idle: Sequence[tuple[int, str]], count: int, prefer: str = "") -> tuple[str, ...]:
    """So many of the idle workers, given as (index, name): the preferred one, then by index."""
    ranked = sorted(idle, key=lambda each: (each[1] != prefer, *each))
    return tuple(name for _, name in ranked[:count])
