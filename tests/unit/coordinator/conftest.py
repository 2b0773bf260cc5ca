"""What the coordinator's tests share: a hello, a task of a given size, a group to play with."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest

from shardwise.coordinator.group import Group
from shardwise.coordinator.group_actions import Action, Drop, Send
from shardwise.coordinator.protocol import (
    Ack,
    FromWorker,
    Generation,
    Go,
    Hello,
    Phase,
    Pulse,
    Ready,
    StepReport,
)
from shardwise.coordinator.report import Assignment

from .serving import Server, serving

Kind = TypeVar("Kind")
WHOLE = {"torch": "2.13.0", "threads": 1}


def make_hello(index: int, **changes: Any) -> Hello:
    values: dict[str, Any] = {
        "token": "secret",
        "worker": f"w-{index}",
        "index": index,
        "fingerprint": {"torch": "2.13.0"},
    }
    return Hello(**{**values, **changes})


def make_assignment(workers: int, **changes: Any) -> Assignment:
    values: dict[str, Any] = {
        "task": "default/digits",
        "name": "digits",
        "workers": workers,
        "trainer": {"entrypoint": "digits:task", "batchSize": 64},
    }
    return Assignment(**{**values, **changes})


def make_secrets() -> Callable[[], bytes]:
    """Secrets as a group asks for them: the number of the draw, 32 times."""
    return (bytes([number % 256]) * 32 for number in itertools.count(1)).__next__


class Play:
    """A group, its clock, and what it wants done since it was last asked: `sent`, `dropped`."""

    def __init__(self, workers: int, **changes: Any) -> None:
        self.now = 0.0
        self.group = Group(make_assignment(workers, **changes), self.now, secret=make_secrets())
        self.actions: list[Action] = []

    # Events.

    def join(self, *indices: int, **changes: Any) -> None:
        """Workers connect, by default as new processes."""
        for index in indices:
            self.actions += self.group.joined(make_hello(index, **changes), self.now)

    def back(self, index: int, generation: int, phase: Phase, step: int, *members: int) -> None:
        """A worker comes back with what it holds."""
        names = tuple(f"w-{member}" for member in members)
        values = {"generation": generation, "phase": phase, "step": step, "members": names}
        self.join(index, fingerprint=WHOLE, **values)

    def say(self, index: int, message: FromWorker) -> None:
        self.actions += self.group.received(f"w-{index}", message, self.now)

    def ready(self, *indices: int) -> None:
        """Workers connect and are loaded."""
        for index in indices:
            self.join(index)
            self.say(index, Ready(fingerprint={"threads": 1}))

    def ack(self, *indices: int, step: int = 0) -> None:
        """Workers ack the newest generation."""
        for index in indices:
            number = self.group.report().generation
            self.say(index, Ack(generation=number, step=step, digest=f"{step}"))

    def die(self, *indices: int) -> None:
        for index in indices:
            self.actions += self.group.disconnected(f"w-{index}", self.now)

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due is done when it is due."""
        until = self.now + seconds
        for _ in range(1000):
            deadline = self.group.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.actions += self.group.tick(self.now)
        self.now = until
        self.actions += self.group.tick(self.now)

    def pulse(self, *indices: int, activity: str = "exchanging", **changes: Any) -> None:
        """Workers answer the newest probe."""
        report = self.group.report()
        values: dict[str, Any] = {
            "nonce": self.nonce,
            "generation": report.generation,
            "step": 0,
            "phase": "training",
            "activity": activity,
            "age_seconds": 0.0,
            "usual_seconds": 0.1,
        }
        for index in indices:
            self.say(index, Pulse(**{**values, **changes}))

    # What came of it.

    @property
    def nonce(self) -> int:
        return self.group._generations.watch._nonce

    def sent(self, kind: type[Kind]) -> dict[str, Kind]:
        """The messages of one kind since this was last asked, the newest of each receiver."""
        found: dict[str, Kind] = {}
        for action in list(self.actions):
            if isinstance(action, Send) and isinstance(action.message, kind):
                found[action.worker] = action.message
                self.actions.remove(action)
        return found

    def dropped(self) -> list[str]:
        return [action.worker for action in self.actions if isinstance(action, Drop)]

    def begun_anew(self) -> list[str]:
        """Those of the dropped that are told to come back as new processes."""
        return [
            action.worker
            for action in self.actions
            if isinstance(action, Drop) and action.last is not None and action.last.again
        ]

    def generation(self) -> tuple[int, str]:
        """The newest generation that was sent, and its members' indices."""
        number, members = 0, ""
        for message in self.sent(Generation).values():
            if message.generation > number:
                number = message.generation
                members = "".join(str(member.index) for member in message.members)
        return number, members

    def gone(self) -> set[str]:
        """Who was sent a go."""
        return set(self.sent(Go))

    @property
    def state(self) -> str:
        return self.group.state


MakeHello = Callable[..., Hello]
MakeAssignment = Callable[..., Assignment]
MakePlay = Callable[..., Play]


def play(workers: int, **changes: Any) -> Play:
    return Play(workers, **changes)


def play_training(workers: int, **changes: Any) -> Play:
    """A group of all its workers that was sent its first go at time 0."""
    made = Play(workers, **changes)
    made.ready(*range(workers))
    made.ack(*range(workers))
    assert made.gone() == {f"w-{index}" for index in range(workers)}
    assert made.state == "training"
    made.actions.clear()
    return made


def step_report(step: int, generation: int = 1, **changes: Any) -> StepReport:
    values: dict[str, Any] = {
        "generation": generation,
        "step": step,
        "total_steps": 100,
        "epoch": 0,
        "loss": 0.5,
        "samples_per_second": 10.0,
        "metrics": {},
        "seconds": {"productive": 1.0},
    }
    return StepReport(**{**values, **changes})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(detection_seconds=0.3) as made:
        yield made


@pytest.fixture
def hello() -> MakeHello:
    return make_hello


@pytest.fixture
def assignment() -> MakeAssignment:
    return make_assignment


@pytest.fixture(name="play")
def play_fixture() -> MakePlay:
    return play


@pytest.fixture
def training() -> MakePlay:
    return play_training


@pytest.fixture
def report() -> Callable[..., StepReport]:
    return step_report
