"""The group of one task: who is in it, in which generation, and what it has come to.

A pure state machine between the service, which owns sockets and clocks, and nobody else. Events
come in with the time they happened at; what comes out is the messages to send. It never reads a
clock, never waits, and holds no connection.

    waiting ─► forming ─► training ─► finished
       │          ▲  │       │
       │          └──┴───────┘  a fault, or a member back in phase `forming`: a new generation
       └──────────┴──────────┴──────► failed

A generation goes out to all members; once each has acked it, all get the go. Every generation has
a number of its own and one list of members, so two lists can never both be current. The group of
this version is fixed: it forms when every index is connected, and a lost member ends the task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardwise.coordinator.checks import digest_difference, fingerprint_difference
from shardwise.coordinator.progress import ProgressTracker
from shardwise.coordinator.protocol import (
    Ack,
    Bye,
    Failed,
    Fault,
    Finished,
    FromCoordinator,
    FromWorker,
    Generation,
    Go,
    Hello,
    KeyValue,
    Member,
    Refusal,
    Refused,
    StepReport,
    Stop,
    Welcome,
)
from shardwise.coordinator.report import Assignment, Failure, TaskReport, TaskState

REGROUP_SECONDS = 0.05
"""From a fault to the new generation: time for the cause, e.g. a death, to show as well."""
REGROUP_LIMIT_SECONDS = 5.0
REGROUP_ATTEMPTS = 10
"""Generations in a row that may break before a step is done."""
ADOPTION_GRACES = 3
"""Grace periods that a running group gets to reconnect to a restarted coordinator."""
MESSAGE_LENGTH = 1000
DETAIL_LENGTH = 8000
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


@dataclass(frozen=True, slots=True)
class Send:
    """A message to a worker's current connection, if it has one."""

    worker: str
    message: FromCoordinator


@dataclass(slots=True)
class _Seat:
    """A member of the group, connected or awaited."""

    hello: Hello
    step: int
    connected: bool = True
    done: bool = False
    """It has finished; its connection may go."""
    lost_at: float | None = None

    @property
    def worker(self) -> str:
        return self.hello.worker

    @property
    def index(self) -> int:
        return self.hello.index


@dataclass(slots=True)
class Group:
    """One task's group.

    Args:
        assignment: the task.
        grace_seconds: how long a member may be away before it counts as lost.
    """

    assignment: Assignment
    grace_seconds: float
    state: TaskState = field(default="waiting", init=False)
    generation: int = field(default=0, init=False)
    """The highest generation that was issued or heard of."""
    failure: Failure | None = field(default=None, init=False)
    result: Mapping[str, Any] | None = field(default=None, init=False)
    _seats: dict[int, _Seat] = field(default_factory=dict, init=False)
    _acks: dict[str, Ack] = field(default_factory=dict, init=False)
    _progress: ProgressTracker = field(default_factory=ProgressTracker, init=False)
    _regroup_at: float | None = field(default=None, init=False)
    _adopt_by: float | None = field(default=None, init=False)
    _trouble: str = field(default="", init=False)
    _trained: bool = field(default=False, init=False)
    """Some member holds state that a worker which comes anew does not have."""
    _step: int = field(default=0, init=False)
    _attempts: int = field(default=0, init=False)
    _attempts_step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.generation = self.assignment.generation_floor

    # Events.

    def joined(self, hello: Hello, now: float) -> list[Send]:
        """A worker has connected, for the first time or again.

        Raises:
            Refused: it cannot be a member; what the group holds is unchanged.
        """
        if hello.phase == "finished":
            return self._joined_finished(hello, now)
        if self.failure is not None:
            return [Send(hello.worker, Stop(reason=self.failure.reason, message=self._ended()))]
        seat = self._seat(hello.worker)
        if self.state == "finished":
            if seat is None:
                return [Send(hello.worker, Stop(reason="Completed", message=self._ended()))]
            # A member that was about to finish as well, when its connection broke.
            seat.connected = True
            return [Send(hello.worker, self._welcome())]
        self._check(hello, seat)
        return self._seated(hello, now)

    def received(self, worker: str, message: FromWorker, now: float) -> list[Send]:
        """A worker has sent a message on its current connection."""
        seat = self._seat(worker)
        match message:
            case Finished():
                return self._finished(worker, seat, message, now)
            case Failed():
                return self._failed(worker, message)
        if seat is None or self.state in ("finished", "failed"):
            return []
        match message:
            case Ack():
                return self._acked(seat, message)
            case KeyValue() if message.generation == self.generation and self._regroup_at is None:
                return self._to_members(message)
            case Fault() if message.generation == self.generation:
                return self._regroup(now, f"{worker}: {message.message}")
            case StepReport() if message.generation == self.generation and seat.index == 0:
                self._step = max(self._step, message.step)
                self._progress.add(message, now)
        return []

    def disconnected(self, worker: str, now: float) -> list[Send]:
        """A worker's current connection has ended."""
        seat = self._seat(worker)
        if seat is None:
            return []
        seat.connected = False
        if self.state == "waiting" and not self._trained:
            del self._seats[seat.index]
        elif not seat.done and self.state not in ("finished", "failed"):
            seat.lost_at = now
        return []

    def tick(self, now: float) -> list[Send]:
        """Time has come to `now`: whatever `next_deadline` was set for is done."""
        if self.state in ("finished", "failed"):
            return []
        for seat in self._seats.values():
            if seat.lost_at is not None and now >= seat.lost_at + self.grace_seconds:
                return self._lose(seat.worker)
        if self._regroup_at is None:
            return []
        if self._missing():
            if self._adopt_by is not None and now >= self._adopt_by:
                message = f"no worker of index {self._missing()[0]} came back to this coordinator"
                return self._fail(Failure(reason="WorkerLost", message=self._advice(message)))
        elif now >= self._regroup_at and self._all_there():
            return self._begin()
        return []

    def close(self, reason: str, message: str) -> list[Send]:
        """The task is taken away, e.g. its job was deleted."""
        return self._to_members(Stop(reason=reason, message=message))

    # What the group tells.

    def next_deadline(self) -> float | None:
        """When `tick` is to be called next; None if only an event can move the group."""
        if self.state in ("finished", "failed"):
            return None
        deadlines = [
            seat.lost_at + self.grace_seconds
            for seat in self._seats.values()
            if seat.lost_at is not None
        ]
        if self._regroup_at is not None:
            if self._missing():
                deadlines += [] if self._adopt_by is None else [self._adopt_by]
            elif self._all_there():
                deadlines.append(self._regroup_at)
        return min(deadlines, default=None)

    def report(self) -> TaskReport:
        """The task as it is now; `progress.at` is in the clock of the events."""
        return TaskReport(
            state=self.state,
            generation=self.generation,
            connected=tuple(seat.worker for seat in self._ranked() if seat.connected),
            workers=self.assignment.workers,
            progress=self._progress.latest,
            failure=self.failure,
            result=self.result,
        )

    # Joining.

    def _check(self, hello: Hello, seat: _Seat | None) -> None:
        """Whether a worker may take its place, in a task that is under way."""
        worker, index, workers = hello.worker, hello.index, self.assignment.workers
        if index >= workers:
            raise Refused("RefusedWorker", f"index {index} is not below the {workers} workers")
        if seat is not None and seat.index != index:
            raise Refused("RefusedWorker", f"{worker} is index {seat.index} here, not {index}")
        held = self._seats.get(index)
        if held is not None and held is not seat:
            raise Refused("RefusedWorker", f"index {index} is taken by worker {held.worker}")
        if hello.phase == "idle" and self._trained:
            raise Refused(
                "RefusedWorker",
                f"the group is at step {self._step} already, and {worker} comes without the "
                "training's state; a running group takes in no new worker",
            )
        for other in self._ranked():
            difference = fingerprint_difference(
                worker, hello.fingerprint, other.worker, other.hello.fingerprint
            )
            if other is not seat and difference:
                raise Refused("RefusedWorker", difference)

    def _seated(self, hello: Hello, now: float) -> list[Send]:
        sends = [Send(hello.worker, self._welcome())]
        current = hello.generation == self.generation
        self.generation = max(self.generation, hello.generation)
        self._step = max(self._step, hello.step)
        self._seats[hello.index] = _Seat(hello=hello, step=hello.step)
        if hello.phase == "training" or (hello.phase == "forming" and hello.step > 0):
            sends += self._mark_trained(now)
        if self.state == "waiting":
            return sends + self._form(now)
        if not (self.state == "training" and hello.phase == "training" and current):
            sends += self._regroup(now, f"{hello.worker} reconnected in phase {hello.phase}")
        return sends

    def _joined_finished(self, hello: Hello, now: float) -> list[Send]:
        """It may go; but rank 0 must first bring its result, which was lost with its connection."""
        sends = [Send(hello.worker, self._welcome())]
        held = self._seats.get(hello.index)
        fits = hello.index < self.assignment.workers and (
            held is None or held.worker == hello.worker
        )
        if not fits or self.state in ("finished", "failed"):
            return [*sends, Send(hello.worker, Bye())]
        done = hello.index != 0
        if done:
            sends.append(Send(hello.worker, Bye()))
        self.generation = max(self.generation, hello.generation)
        self._step = max(self._step, hello.step)
        self._seats[hello.index] = _Seat(hello=hello, step=hello.step, done=done)
        sends += self._mark_trained(now)
        return sends + (self._form(now) if self.state == "waiting" else [])

    def _mark_trained(self, now: float) -> list[Send]:
        """A member brings state along, so one without any cannot be its peer any more."""
        if self._trained:
            return []
        self._trained = True
        self._adopt_by = now + ADOPTION_GRACES * self.grace_seconds
        fresh = [seat for seat in self._ranked() if seat.hello.phase == "idle"]
        for seat in fresh:
            del self._seats[seat.index]
        message = "the group is training already, and this worker comes without its state"
        refusal = Refusal(reason="RefusedWorker", message=message)
        return [Send(seat.worker, refusal) for seat in fresh]

    # Generations.

    def _form(self, now: float) -> list[Send]:
        """With every index there: adopt a group that trains, or make one."""
        in_step = all(
            seat.hello.phase in ("training", "finished")
            and seat.hello.generation == self.generation
            for seat in self._seats.values()
        )
        if not in_step and self._trained and self._regroup_at is None:
            self._regroup_at = now
        if self._missing() or not self._all_there():
            return []
        if in_step and self._regroup_at is None:
            self.state = "training"
            return []
        return self._begin()

    def _regroup(self, now: float, trouble: str) -> list[Send]:
        """A new generation is needed, a little later."""
        self._trouble = _line(trouble, MESSAGE_LENGTH // 2)
        if self._regroup_at is None:
            delay = REGROUP_SECONDS * 2 ** max(0, self._attempts - 1)
            self._regroup_at = now + min(delay, REGROUP_LIMIT_SECONDS)
            self._progress.pause()
        if self.state == "training":
            self.state = "forming"
        return []

    def _begin(self) -> list[Send]:
        self._regroup_at = None
        if any(seat.done for seat in self._seats.values()):
            message = "a member broke off after another had finished"
            return self._fail(Failure(reason="WorkerLost", message=self._advice(message)))
        if self._step > self._attempts_step:
            self._attempts, self._attempts_step = 0, self._step
        self._attempts += 1
        if self._attempts > REGROUP_ATTEMPTS:
            message = (
                f"{REGROUP_ATTEMPTS} generations in a row broke before a step was done, the last "
                f"by {self._trouble or 'a reconnect'}; the workers must be able to reach each other"
            )
            return self._fail(Failure(reason="WorkerLost", message=self._advice(message)))
        self.state = "forming"
        self.generation += 1
        self._acks.clear()
        return self._to_members(Generation(generation=self.generation, members=self._members()))

    def _acked(self, seat: _Seat, ack: Ack) -> list[Send]:
        if (
            self.state != "forming"
            or self._regroup_at is not None
            or ack.generation != self.generation
        ):
            return []
        self._acks[seat.worker] = ack
        seat.step = ack.step
        self._step = max(self._step, ack.step)
        ranked = self._ranked()
        if not self._all_there() or any(each.worker not in self._acks for each in ranked):
            return []
        difference = digest_difference({each.worker: self._acks[each.worker] for each in ranked})
        if difference:
            return self._fail(Failure(reason="RefusedWorker", message=difference))
        self.state = "training"
        self._trained = True
        steps = tuple(each.step for each in ranked)
        return self._to_members(
            Go(generation=self.generation, members=self._members(), steps=steps)
        )

    # Ends.

    def _finished(
        self, worker: str, seat: _Seat | None, message: Finished, now: float
    ) -> list[Send]:
        if seat is not None:
            seat.done = True
            seat.lost_at = None
            if seat.index == 0 and self.state != "failed":
                self.state = "finished"
                self.result = self.result if message.result is None else message.result
            elif self.state == "forming":
                self._regroup(now, f"{worker} finished")
        return [Send(worker, Bye())]

    def _failed(self, worker: str, message: Failed) -> list[Send]:
        sends = [Send(worker, Bye())]
        seat = self._seat(worker)
        if seat is None or self.state in ("finished", "failed"):
            return sends
        seat.done = True
        failure = Failure(
            reason=message.reason if _REASON.fullmatch(message.reason) else "UserCodeFailed",
            message=_line(message.message, MESSAGE_LENGTH),
            detail=message.detail[-DETAIL_LENGTH:],
            worker=worker,
        )
        return sends + self._fail(failure)

    def _lose(self, worker: str) -> list[Send]:
        message = self._advice(
            f"worker {worker} was lost: its connection ended, and it did not come back within "
            f"{self.grace_seconds:g} s"
        )
        return self._fail(Failure(reason="WorkerLost", message=message, worker=worker))

    def _fail(self, failure: Failure) -> list[Send]:
        self.state = "failed"
        self.failure = failure
        return self._to_members(Stop(reason=failure.reason, message=self._ended()))

    def _advice(self, message: str) -> str:
        return f"at step {self._step}, {message}; look at the workers' logs and start the job again"

    def _ended(self) -> str:
        if self.failure is None:
            return "the task has finished"
        return f"the task has failed: {self.failure.message}"

    # Small queries.

    def _seat(self, worker: str) -> _Seat | None:
        return next((seat for seat in self._seats.values() if seat.worker == worker), None)

    def _ranked(self) -> list[_Seat]:
        return [self._seats[index] for index in sorted(self._seats)]

    def _members(self) -> tuple[Member, ...]:
        return tuple(
            Member(worker=seat.worker, index=seat.index, step=seat.step) for seat in self._ranked()
        )

    def _missing(self) -> list[int]:
        return [index for index in range(self.assignment.workers) if index not in self._seats]

    def _all_there(self) -> bool:
        """No member is awaited: each is connected, or needs no connection any more."""
        return all(seat.connected or seat.done for seat in self._seats.values())

    def _to_members(self, message: FromCoordinator) -> list[Send]:
        """To every member with a connection that has not finished."""
        return [
            Send(seat.worker, message)
            for seat in self._ranked()
            if seat.connected and not seat.done
        ]

    def _welcome(self) -> Welcome:
        return Welcome(assignment=self.assignment)


def _line(text: str, length: int) -> str:
    """The text as one line of bounded length."""
    return " ".join(text.split())[:length]
