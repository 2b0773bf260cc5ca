"""Who is to be in a group's next generation. Pure choices over the workers that are connected.

Members are ranked by index; indices need not be contiguous. Current members stay members, then
come workers that hold the training's state, then whoever is loaded, lowest index first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shardwise.coordinator.protocol import Ack, Scalar
from shardwise.coordinator.report import Cause


@dataclass(slots=True)
class Seat:
    """A connected worker."""

    worker: str
    index: int
    fingerprint: dict[str, Scalar]
    step: int = 0
    """The highest step that it is known to stand at."""
    loaded: bool = False
    """It may be put into a generation."""
    holds: bool = False
    """It holds the training's state: it was in a group, or comes with a step."""
    leaving: bool = False
    done: bool = False
    """It is past the last step and said so."""
    dismissed: bool = False
    """It was told to end, and is needed for nothing."""

    @property
    def rank(self) -> tuple[int, str]:
        return self.index, self.worker


@dataclass(slots=True)
class Round:
    """A generation that was issued."""

    number: int
    members: tuple[str, ...]
    """By rank."""
    soft: bool
    since: float
    acks: dict[str, Ack] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Members that need not be there any more: they have left, or are done."""
    relayed: dict[str, int] = field(default_factory=dict)
    """Bytes that each member has put into its store."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Members whose ack is awaited."""
        return tuple(worker for worker in self.members if worker not in self.acks)


def choose(
    seats: Mapping[str, Seat],
    group: Collection[str],
    workers: int,
    out: Collection[str] = (),
) -> tuple[str, ...]:
    """The members of a generation that is formed now, by rank.

    Args:
        group: the members so far. All that are connected stay, be they more than `workers`: to
            drop one could drop the only holder of the newest step.
        out: who is not to be chosen.
    """
    candidates = [
        seat
        for seat in seats.values()
        if seat.loaded
        and not seat.dismissed
        and seat.worker not in out
        and (seat.worker in group or not seat.leaving)
    ]
    candidates.sort(
        key=lambda seat: (
            seat.worker not in group,
            -seat.step if seat.holds else 1,
            *seat.rank,
        )
    )
    chosen: list[Seat] = []
    for seat in candidates:
        taken = any(seat.index == other.index for other in chosen)
        if seat.worker in group or (len(chosen) < workers and not taken):
            chosen.append(seat)
    return _ranked(chosen)


def change(
    seats: Mapping[str, Seat], group: Sequence[str], workers: int, out: Collection[str] = ()
) -> tuple[str, ...]:
    """The members of a running group's next generation, by rank; `group` itself for no change.

    Who leaves goes one of two neighbours at a time, since each holds a copy of the other's part
    of the optimizer's state. The last holders of the training's state stay until a newcomer has
    copied it. None are left where all leave and nobody is there to take over.
    """
    present = [worker for worker in group if worker in seats]
    wanted = [worker for worker in present if not seats[worker].leaving]
    wanted = wanted[:workers]
    newcomers = [
        worker
        for worker in choose(seats, wanted, workers, out)
        if worker not in present and worker not in wanted
    ]
    if not wanted:
        if not newcomers or workers < 2:
            return ()
        wanted = present[:1]
    stay = _without_neighbours(present, wanted)
    room = max(0, workers - len(stay))
    return _ranked([seats[worker] for worker in (*stay, *newcomers[:room])])


def heir_loads(seats: Mapping[str, Seat]) -> bool:
    """Whether somebody loads the task who could go on with it."""
    return any(not (seat.loaded or seat.leaving or seat.dismissed) for seat in seats.values())


def stands(seats: Mapping[str, Seat], group: Round, stuck: Collection[str]) -> bool:
    """Whether a whole group stands still, and nobody is there to go on in its place.

    What it has done is in the memory of those that hang. They may wake; the job's stall timeout
    ends them.
    """
    members = set(group.members)
    return seats.keys() <= members and members - group.gone <= set(stuck)


def causes(
    seats: Mapping[str, Seat], group: Sequence[str], members: Collection[str], workers: int
) -> dict[str, Cause]:
    """Why each of the group goes that is no member any more.

    Who scales a job down takes the pods away at the same time, so those workers ask to leave before
    the last of them is let go: none of them was preempted.
    """
    dropped = [worker for worker in group if worker not in members]
    surplus = max(0, len(group) - workers)
    resized = sorted(dropped, key=lambda worker: seats[worker].leaving)[:surplus]
    return {worker: "Resized" if worker in resized else "Preempted" for worker in dropped}


def _without_neighbours(group: Sequence[str], wanted: Collection[str]) -> list[str]:
    """The group without its unwanted members, except those whose neighbour in the ring goes."""
    going: set[int] = set()
    for rank, worker in enumerate(group):
        neighbours = {(rank - 1) % len(group), (rank + 1) % len(group)}
        if worker not in wanted and not neighbours & going:
            going.add(rank)
    return [worker for rank, worker in enumerate(group) if rank not in going]


def _ranked(seats: Iterable[Seat]) -> tuple[str, ...]:
    return tuple(seat.worker for seat in sorted(seats, key=lambda seat: seat.rank))
