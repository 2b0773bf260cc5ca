"""A cluster of threads whose members die and whose groups break at chosen points.

A receipt fails only where its sender left the group without having sent: so every member gets as
far as it can, which is what tears members' steps apart the most, and a run follows from its faults
alone, however the threads are scheduled.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from shardwise.engine.group import GroupError, Interrupted
from shardwise.engine.training import Training

TIMEOUT_SECONDS = 60.0

Fault = Literal["kill", "cut"]
"""A killed member is gone; one that is cut off sees its group broken, and comes back."""


class Killed(BaseException):
    """Ends a member's thread."""


@dataclass
class Member:
    index: int
    training: Training
    faults: Mapping[int, Fault]
    """What happens at its n-th point: before a transfer is begun or waited for, and at beats."""
    joins_at: int = 1
    """The number of the generation in which it first takes part."""
    points: int = 0
    state: Literal["absent", "running", "waiting", "finishing", "dead"] = "absent"
    group: FaultyGroup | None = None
    outcome: Any = None
    error: BaseException | None = None
    computed: list[int] = field(default_factory=list)
    """The shards computed in each step that was done."""
    ends: list[int] = field(default_factory=list)
    """The last point of each step that was done."""

    def point(self) -> None:
        self.points += 1
        match self.faults.get(self.points):
            case "kill":
                raise Killed
            case "cut":
                raise Interrupted("cut off by the test")


class FaultyGroup:
    """One member's view of one generation."""

    def __init__(self, generation: Generation, rank: int, size: int, member: Member) -> None:
        self.rank, self.size = rank, size
        self._generation, self._member = generation, member

    def send(self, tensor: Tensor, to: int, tag: int) -> _Sent:
        self._member.point()
        self._generation.put((self.rank, to, tag), tensor.clone())
        return _Sent(self._member)

    def receive(self, tensor: Tensor, source: int, tag: int) -> _Receipt:
        self._member.point()
        assert tensor.is_contiguous()
        return _Receipt(self._member, self._generation, (source, self.rank, tag), tensor)

    def leave(self) -> None:
        self._generation.leave(self.rank)


@dataclass
class _Sent:
    member: Member

    def wait(self) -> None:
        self.member.point()


@dataclass
class _Receipt:
    member: Member
    generation: Generation
    key: tuple[int, int, int]
    target: Tensor

    def wait(self) -> None:
        self.member.point()
        sent = self.generation.get(self.key)
        assert sent.shape == self.target.shape, (self.key, sent.shape, self.target.shape)
        assert sent.dtype == self.target.dtype
        self.target.copy_(sent)


class Generation:
    """The letter boxes of one group."""

    def __init__(self) -> None:
        self._boxes: defaultdict[tuple[int, int, int], deque[Tensor]] = defaultdict(deque)
        self._left: set[int] = set()
        self._changed = threading.Condition()

    def put(self, key: tuple[int, int, int], tensor: Tensor) -> None:
        with self._changed:
            self._boxes[key].append(tensor)
            self._changed.notify_all()

    def get(self, key: tuple[int, int, int]) -> Tensor:
        with self._changed:
            self._changed.wait_for(
                lambda: self._boxes[key] or key[0] in self._left, timeout=TIMEOUT_SECONDS
            )
            if self._boxes[key]:
                return self._boxes[key].popleft()
            assert key[0] in self._left, f"nobody sends {key}"
            raise GroupError(f"rank {key[0]} left", peer=key[0])

    def leave(self, rank: int) -> None:
        with self._changed:
            self._left.add(rank)
            self._changed.notify_all()


class Cluster:
    """Members that train to the end, whatever their faults; at least one has to live."""

    def __init__(self, members: list[Member], finish: Callable[[Training], Any]) -> None:
        self.members, self._finish = members, finish
        self.generations = 0
        self._changed = threading.Condition()

    def run(self) -> list[Member]:
        """All members, once those that live are done. Raises what a member raised."""
        threads = [
            threading.Thread(target=self._live, args=(member,), daemon=True)
            for member in self.members
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)
        for member in self.members:
            if member.error is not None:
                raise member.error
        assert not any(thread.is_alive() for thread in threads), "a member hangs"
        return self.members

    def _live(self, member: Member) -> None:
        try:
            while (group := self._next_group(member)) is not None:
                try:
                    self._train(member, group)
                    self._become(member, "finishing")
                except GroupError:
                    self._become(member, "waiting")
                finally:
                    group.leave()
        except Killed:
            self._become(member, "dead")
        except BaseException as error:
            member.error = error
            self._become(member, "dead")

    def _train(self, member: Member, group: FaultyGroup) -> None:
        training = member.training
        training.beat = lambda activity: member.point()
        training.join(group)
        while True:
            if training.evaluation_due:
                training.evaluate()
            elif training.done:
                member.outcome = self._finish(training)
                return
            else:
                member.computed.append(training.step().computed_shards)
                member.ends.append(member.points)

    def _become(self, member: Member, state: Any) -> None:
        with self._changed:
            member.state, member.group = state, None
            self._form()
            self._changed.notify_all()

    def _next_group(self, member: Member) -> FaultyGroup | None:
        """The member's next group; None at the end."""
        with self._changed:
            if member.state == "absent" and member.joins_at <= 1:
                member.state = "waiting"
                self._form()
            came = self._changed.wait_for(
                lambda: member.group is not None or self._over(), timeout=TIMEOUT_SECONDS
            )
            assert came, f"member {member.index} gets no group: {self.members}"
            group, member.group = member.group, None
            if group is None:
                member.state = "dead" if member.state == "absent" else member.state
            return group

    def _over(self) -> bool:
        return all(member.state in ("finishing", "dead", "absent") for member in self.members)

    def _form(self) -> None:
        """Form the next group as soon as nobody is still in the last one."""
        first = [m for m in self.members if m.state == "absent" and m.joins_at <= 1]
        if first or self._over() or any(m.state == "running" for m in self.members):
            self._changed.notify_all()
            return
        self.generations += 1
        for member in self.members:
            if member.state == "absent" and member.joins_at <= self.generations:
                member.state = "waiting"
        living = [m for m in self.members if m.state in ("waiting", "finishing")]
        generation = Generation()
        for rank, member in enumerate(living):
            member.state = "running"
            member.group = FaultyGroup(generation, rank, len(living), member)
        self._changed.notify_all()
