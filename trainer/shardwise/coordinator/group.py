"""The group of one task: who is in it, in which generation, and what it has come to.

A pure state machine between the service, which owns sockets and clocks, and nobody else. Events
come in with the time they happened at; what comes out is what to send and whom to cut off. It
never reads a clock, never waits, and holds no connection.

    waiting ─► forming ─► training ─► finished
       ▲          ▲  │       │
       │          └──┴───────┤  a death, a fault: hard, at once; a join, a leave: soft
       └─────────────────────┴─ fewer than the minimum

A generation goes out to all members; once each has acked it, all get the go. Every generation has
a number of its own and one list of members, so two lists can never both be current. Here is what
events mean; what follows from the state they leave is `generations`' to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from shardwise.api.conditions import REFUSED_WORKER
from shardwise.coordinator import waiting
from shardwise.coordinator.adoption import Adoption
from shardwise.coordinator.checks import fingerprint_difference
from shardwise.coordinator.generations import Generations
from shardwise.coordinator.group_actions import Action, Drop, Send
from shardwise.coordinator.membership import Seat
from shardwise.coordinator.progress import ProgressTracker
from shardwise.coordinator.protocol import (
    Ack,
    Bye,
    CheckpointReport,
    Failed,
    Fault,
    Finished,
    FromWorker,
    Hello,
    KeyValue,
    Leave,
    Protection,
    Pulse,
    Ready,
    Refusal,
    Refused,
    StepReport,
    Stop,
    Suspect,
    Welcome,
)
from shardwise.coordinator.report import Assignment, Cause, Failure, TaskReport, TaskState

__all__ = ["MESSAGE_LENGTH", "Action", "Drop", "Group", "Send"]

RESEAT_SECONDS = 3.0
"""How long the rest of a group is waited for that comes back after all its connections ended."""
MESSAGE_LENGTH = 1000
DETAIL_LENGTH = 8000
RELAY_BYTES = 4 << 20
"""That a member may put into one generation's store: each of them goes to all."""
_REASON = re.compile(r"[A-Z][A-Za-z]{0,62}")
"""As a condition's reason is."""


class Group:
    """One task's group. Every event gives what is to be done about it, in order.

    Args:
        assignment: the task. With a `generation_floor` it ran under an earlier coordinator, and
            its workers may still train.
        now: the time.
        detection_seconds: how long a worker may take to answer a probe.
        adoption_seconds: how long members that trained under an earlier coordinator may take to
            come to this one.
        secret: gives 32 bytes that nobody can guess, others each time.
        protection: of the connections between the members.
    """

    def __init__(
        self,
        assignment: Assignment,
        now: float,
        *,
        detection_seconds: float = 0.5,
        adoption_seconds: float = 10.0,
        secret: Callable[[], bytes],
        protection: Protection = "authenticated",
    ) -> None:
        self.result: Mapping[str, Any] | None = None
        self._finished = False
        self._adoption_seconds = adoption_seconds
        self._progress = ProgressTracker()
        self._generations = Generations(
            assignment, now, detection_seconds, adoption_seconds, secret, protection
        )
        self._seats = self._generations.seats

    # Events.

    def joined(self, hello: Hello, now: float) -> list[Action]:
        """A worker has connected, for the first time or again.

        Raises:
            Refused: it cannot be a member; what the group holds is unchanged.
        """
        if self._finished:
            return [Send(hello.worker, Bye())]
        if self.failure is not None:
            message = f"the task has failed: {self.failure.message}"
            return [Send(hello.worker, Stop(reason=self.failure.reason, message=message))]
        self._check(hello)
        generations = self._generations
        generations.send(hello.worker, Welcome(assignment=self.assignment))
        generations.number = max(generations.number, hello.generation)
        generations.tally.reached(hello.step)
        if hello.worker in self._seats and not self._stays(hello, now):
            generations.lose(hello.worker, "Killed", now)
        if hello.worker not in self._seats:
            self._seat(hello, now)
        return self._settled(now)

    def received(self, worker: str, message: FromWorker, now: float) -> list[Action]:
        """A worker has sent a message on its current connection.

        Raises:
            Refused: no worker of ours does so.
        """
        seat = self._seats.get(worker)
        if seat is None or self.ended:
            return [Send(worker, Bye())] if isinstance(message, Finished | Failed) else []
        match message:
            case Ready():
                self._ready(seat, message, now)
            case Ack():
                self._acked(seat, message, now)
            case KeyValue():
                self._relay(seat, message)
            case Fault() | Suspect():
                self._doubt(seat, message, now)
            case Pulse():
                self._generations.watch.answer(worker, message, now)
            case StepReport():
                self._stepped(seat, message, now)
            case CheckpointReport():
                self._generations.tally.checkpointed(message, now)
            case Leave():
                seat.leaving = True
            case Finished():
                self._done(seat, message)
            case Failed():
                self._failed(seat, message)
        return self._settled(now)

    def refuse(self, worker: str, message: str, now: float) -> list[Action]:
        """A member does what no worker of ours does, for as long as it lives: the task fails."""
        if worker in self._seats and not self.ended:
            text = _line(f"{worker} was refused: {message}", MESSAGE_LENGTH)
            self._generations.fail(Failure(reason=REFUSED_WORKER, message=text, worker=worker))
        return self._settled(now)

    def disconnected(self, worker: str, now: float) -> list[Action]:
        """A worker's current connection has ended."""
        self._lose(worker, "Killed", now)
        return self._settled(now)

    def lost(self, worker: str, cause: Cause, now: float) -> list[Action]:
        """A worker is gone for another reason, e.g. its pod is; it is cut off, if it lives."""
        if worker in self._seats:
            self._generations.actions.append(Drop(worker))
        self._lose(worker, cause, now)
        return self._settled(now)

    def resize(self, workers: int, min_workers: int, now: float) -> list[Action]:
        """Another number of members is wanted; more than `workers` leave at the next boundary.

        A group that trains with fewer than a raised minimum goes on; its next one waits.
        """
        self._generations.assignment = replace(
            self.assignment, workers=workers, min_workers=min_workers
        )
        return self._settled(now)

    def drain(self, reason: str, now: float) -> list[Action]:
        """All workers are to leave at the next boundary, with a checkpoint, for good."""
        self._generations.draining = _line(reason, MESSAGE_LENGTH)
        return self._settled(now)

    def release(self, worker: str, now: float) -> list[Action]:
        """A worker that stands by is not needed here; one of the group stays."""
        seat = self._seats.get(worker)
        if seat is None or worker in self._generations.group() or self.ended:
            return []
        del self._seats[worker]
        self._generations.send(worker, Bye())
        return self._settled(now)

    def tick(self, now: float) -> list[Action]:
        """Time has come to `now`: whatever `next_deadline` was set for is done."""
        return self._settled(now)

    def close(self, reason: str, message: str) -> list[Action]:
        """The task is taken away, e.g. its job was deleted."""
        return [Send(worker, Stop(reason=reason, message=message)) for worker in self._seats]

    # What the group tells.

    @property
    def assignment(self) -> Assignment:
        return self._generations.assignment

    @property
    def failure(self) -> Failure | None:
        return self._generations.failure

    @property
    def ended(self) -> bool:
        return self._finished or self.failure is not None

    @property
    def state(self) -> TaskState:
        generations = self._generations
        if self._finished:
            return "finished"
        if self.failure is not None:
            return "failed"
        if generations.running is not None:
            return "training" if generations.hard_at is None else "forming"
        if generations.forming is None or generations.parked:
            return "waiting"
        return "forming" if generations.forming.members else "waiting"

    def next_deadline(self) -> float | None:
        """When `tick` is to be called next; None if only an event can move the group."""
        return None if self.ended else self._generations.next_deadline()

    def report(self) -> TaskReport:
        """The task as it is now; all times are in the clock of the events."""
        generations, tally = self._generations, self._generations.tally
        ranked = sorted(self._seats.values(), key=lambda seat: seat.rank)
        current = generations.running or generations.forming
        members = () if current is None else current.members
        return TaskReport(
            state=self.state,
            generation=generations.number,
            connected=tuple(seat.worker for seat in ranked),
            workers=self.assignment.workers,
            progress=self._progress.latest,
            failure=self.failure,
            result=self.result,
            members=tuple(worker for worker in members if worker in self._seats),
            standbys=tuple(
                seat.worker for seat in ranked if seat.loaded and seat.worker not in members
            ),
            waiting=self._waiting(),
            recoveries=dict(tally.recoveries),
            losses=tuple(tally.losses),
            recovery_seconds=tally.recovery_seconds,
            seconds=dict(tally.seconds),
            checkpoint=tally.checkpoint,
            lost_steps=tally.lost_steps,
        )

    def _waiting(self) -> str:
        generations, assignment = self._generations, self.assignment
        trouble, adoption = generations.trouble, generations.adoption
        if self.state in ("training", "finished", "failed"):
            return ""
        if generations.draining is not None:
            return waiting.draining(generations.draining, len(self._seats))
        if adoption is not None:
            return waiting.coming_back(
                adoption.awaited(), adoption.generation, self._adoption_seconds
            )
        if generations.running is not None:
            return waiting.trying_again(trouble.attempts, trouble.last, trouble.delay())
        if generations.forming is not None and not generations.parked:
            return waiting.forming(generations.forming.missing, generations.forming.number)
        ready = sum(seat.loaded and not seat.leaving for seat in self._seats.values())
        loading = sum(not seat.loaded for seat in self._seats.values())
        return waiting.too_few(
            ready, loading, generations.needed, assignment.workers, assignment.gather_seconds
        )

    # What events mean.

    def _settled(self, now: float) -> list[Action]:
        generations = self._generations
        if not self.ended:
            before = generations.reporter
            generations.settle(now)
            if self.state == "waiting":
                self._progress.pause()
            elif generations.reporter != before:
                self._progress.regrouped()
        actions, generations.actions = generations.actions, []
        return actions

    def _lose(self, worker: str, cause: Cause, now: float) -> None:
        generations = self._generations
        if self.ended:  # who goes now is no loss
            self._seats.pop(worker, None)
            return
        if generations.adoption is not None:
            generations.adoption.lost(worker, cause, now)
        if worker in self._seats:
            generations.lose(worker, cause, now)

    def _check(self, hello: Hello) -> None:
        """Whether a worker may take part."""
        seat = self._seats.get(hello.worker)
        if seat is not None and seat.index != hello.index:
            raise Refused(
                "RefusedWorker", f"{hello.worker} is index {seat.index} here, not {hello.index}"
            )
        difference = self._difference(
            hello.worker, dict(hello.fingerprint), whole=hello.phase != "loading"
        )
        if difference:
            raise Refused("RefusedWorker", difference)

    def _difference(
        self, worker: str, fingerprint: dict[str, str | int | float], *, whole: bool
    ) -> str | None:
        """How a worker differs from the others, in what both have told of themselves."""
        for other in self._seats.values():
            if other.worker == worker:
                continue
            mine, theirs = fingerprint, other.fingerprint
            if not (whole and other.loaded):
                both = mine.keys() & theirs.keys()
                mine = {key: mine[key] for key in both}
                theirs = {key: theirs[key] for key in both}
            difference = fingerprint_difference(worker, mine, other.worker, theirs)
            if difference:
                return difference
        return None

    def _seat(self, hello: Hello, now: float) -> None:
        """A worker that the group does not know takes its place."""
        generations = self._generations
        in_group = hello.phase not in ("loading", "ready")
        # One that was put out for standing still stands still, whatever group it says it is in.
        fine = hello.worker not in generations.trouble.barred(now)
        if generations.adoption is None and in_group and fine and not generations.group():
            # All connections ended, not the workers: e.g. this machine was cut off.
            generations.adoption = Adoption(now + RESEAT_SECONDS)
            generations.running = generations.forming = generations.hard_at = None
        if generations.adoption is not None:
            generations.adoption.came(hello, now)
        generations.changed_at = now
        self._seats[hello.worker] = Seat(
            worker=hello.worker,
            index=hello.index,
            fingerprint=dict(hello.fingerprint),
            step=hello.step,
            loaded=hello.phase != "loading",
            holds=hello.step > 0 or hello.phase in ("training", "finishing"),
        )

    def _stays(self, hello: Hello, now: float) -> bool:
        """Whether a seated worker that has connected anew is where it was.

        What was under way on its former connection may be lost, both ways.
        """
        generations, worker = self._generations, hello.worker
        running, forming = generations.running, generations.forming
        in_step = hello.phase in ("training", "finishing")
        if running is not None and worker in running.members:
            if worker in running.gone:
                return False
            if hello.generation == running.number and not in_step:
                generations.trouble.fault(worker, None, "its exchange broke")
                generations.broke(now)
            elif hello.generation != running.number and not self._lost_track(hello, now):
                return False
            if forming is not None and worker not in forming.acks:
                generations.announce(worker)
        elif forming is not None and worker in forming.members:
            if hello.phase == "loading":
                return False
            if not self._lost_track(hello, now):
                generations.announce(worker)
        else:
            return False
        seat = self._seats[worker]
        seat.step, seat.done = max(seat.step, hello.step), False
        return True

    def _lost_track(self, hello: Hello, now: float) -> bool:
        """A member acked the generation that forms; that ack, or the go, may be lost."""
        forming = self._generations.forming
        if forming is None or hello.generation != forming.number:
            return False
        if hello.worker in forming.members:
            self._generations.stale(now)
        return True

    def _ready(self, seat: Seat, message: Ready, now: float) -> None:
        whole = {**seat.fingerprint, **message.fingerprint}
        difference = self._difference(seat.worker, whole, whole=True)
        if difference:
            self._generations.send(
                seat.worker, Refusal(reason="RefusedWorker", message=difference[:MESSAGE_LENGTH])
            )
            self._generations.lose(seat.worker, "Killed", now)
            return
        seat.fingerprint = whole
        seat.loaded = True
        self._generations.changed_at = now

    def _acked(self, seat: Seat, ack: Ack, now: float) -> None:
        generations = self._generations
        running, forming = generations.running, generations.forming
        if generations.adoption is not None:
            # Of a generation that an earlier coordinator has issued.
            generations.adoption.left(seat.worker, now)
        elif forming is not None and ack.generation == forming.number:
            seat.step = ack.step
            if seat.worker in forming.members:
                forming.acks[seat.worker] = ack
                generations.acked(seat.worker, now)
            elif running is not None:
                running.gone.add(seat.worker)
        elif running is not None and ack.generation > running.number:
            generations.trouble.fault(seat.worker, None, "it left for an older generation")
            generations.broke(now)

    def _relay(self, seat: Seat, message: KeyValue) -> None:
        running = self._generations.running
        if running is None or message.generation != running.number:
            return
        size = running.relayed.get(seat.worker, 0) + len(message.key) + len(message.value)
        if size > RELAY_BYTES:
            raise Refused(
                REFUSED_WORKER,
                f"it puts {size} bytes into the store of generation {running.number}, more than "
                f"{RELAY_BYTES}",
            )
        running.relayed[seat.worker] = size
        for worker in running.members:
            if worker in self._seats:
                self._generations.send(worker, message)

    def _doubt(self, seat: Seat, message: Fault | Suspect, now: float) -> None:
        """A worker's exchange broke, or takes too long."""
        generations, running = self._generations, self._generations.running
        if generations.adoption is not None:
            if isinstance(message, Fault):
                generations.adoption.left(seat.worker, now)
            else:
                generations.adoption.hurry(now)
        elif (
            running is not None
            and message.generation == running.number
            and seat.worker in running.members
        ):
            if isinstance(message, Fault):
                text = _line(message.message, MESSAGE_LENGTH // 2)
                peer = message.peer if message.peer in running.members else None
                generations.trouble.fault(seat.worker, peer, text)
                generations.broke(now)
            else:
                generations.watch.suspect(seat.worker, message.step, now)

    def _stepped(self, seat: Seat, message: StepReport, now: float) -> None:
        generations = self._generations
        if (message.generation, seat.worker) != generations.reporter:
            return
        generations.heard_at = now
        seat.step = max(seat.step, message.step)
        for worker in generations.running.members if generations.running else ():
            if worker in self._seats:
                # A step takes all members: none is further back than the one before.
                other = self._seats[worker]
                other.step = max(other.step, message.step - 1)
        generations.tally.reached(message.step)
        generations.tally.spent(message.seconds)
        self._progress.add(message, now)

    def _done(self, seat: Seat, message: Finished) -> None:
        """A member is past the last step; rank 0's result, from whom it may come, ends the task."""
        generations = self._generations
        if message.result is None:
            if generations.adoption is not None or seat.worker in generations.group():
                seat.done = generations.past_end = True
            return
        self._finished = True
        self.result = message.result
        for worker in self._seats:
            generations.send(worker, Bye())

    def _failed(self, seat: Seat, message: Failed) -> None:
        self._generations.send(seat.worker, Bye())
        self._generations.fail(
            Failure(
                reason=message.reason if _REASON.fullmatch(message.reason) else "UserCodeFailed",
                message=_line(message.message, MESSAGE_LENGTH),
                detail=message.detail[-DETAIL_LENGTH:],
                worker=seat.worker,
            )
        )


def _line(text: str, length: int) -> str:
    """The text as one line of bounded length."""
    return " ".join(text.split())[:length]
