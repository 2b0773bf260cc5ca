"""From the state of a task's workers to its next generation: what is to be done now.

`settle` is called after every event and looks at the state alone, so the order of events does not
matter: is a hard generation due, has the one that forms all its acks, can a group start, has a
running one to change, is somebody to be probed. It gives nothing back: `actions` collects. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shardwise.coordinator import doubt
from shardwise.coordinator.adoption import Adoption
from shardwise.coordinator.checks import digest_difference
from shardwise.coordinator.group_actions import Action, Drop, Send
from shardwise.coordinator.membership import Round, Seat, causes, change, choose, heir_loads, stands
from shardwise.coordinator.protocol import (
    HUNG,
    Bye,
    FromCoordinator,
    Generation,
    Go,
    Member,
    Probe,
    Protection,
    Stop,
)
from shardwise.coordinator.report import Assignment, Cause, Failure
from shardwise.coordinator.suspicion import Watch
from shardwise.coordinator.tally import Tally
from shardwise.coordinator.trouble import ATTEMPTS_LIMIT, Trouble

RETURN_SECONDS = 1.0
"""After the loss of all members, before workers without state start: some may only be cut off."""
SILENT_REPORTS = 3.0
"""Report periods without a report, before the group is asked: where all hang nobody suspects."""
HEIR_SECONDS = 10.0
"""That a group of which all leave goes on for a worker that still loads the task. The rest of their
grace period is for a checkpoint, should it not come."""
NUMBERS_APART = 100
"""Generations that an earlier coordinator may have issued and nobody here has heard of."""
BEGIN_ANEW = Stop(reason=HUNG, message="the training thread stands still", again=True)
"""To a worker that hangs: its control thread would bring it back at once, to hang again."""


class Generations:
    """The seats and generations of one task.

    Args:
        secret: gives the next generation's.
        protection: of its members' connections.
    """

    def __init__(
        self,
        assignment: Assignment,
        now: float,
        detection_seconds: float,
        adoption_seconds: float,
        secret: Callable[[], bytes],
        protection: Protection,
    ) -> None:
        self._secret, self._protection = secret, protection
        self.assignment = assignment
        self.number = assignment.generation_floor
        """The highest generation that was issued or heard of."""
        self.seats: dict[str, Seat] = {}
        """The connected workers."""
        self.running: Round | None = None
        """The generation that was sent its go last, unless a hard one has ended it."""
        self.forming: Round | None = None
        """The generation that was issued and has no go yet."""
        self.hard_at: float | None = None
        """When a hard generation is due."""
        self.adoption: Adoption | None = None
        self.draining: str | None = None
        """Why everybody is to leave."""
        self.reporter: tuple[int, str] = (0, "")
        """The generation that was in charge last, and its rank 0."""
        self.heard_at = now
        """When rank 0 has reported last, or the group was begun or found well."""
        self.failure: Failure | None = None
        self.past_end = False
        """Some member is past the last step."""
        self.changed_at = now
        """When a worker has come, gone or become ready last."""
        self.now = now
        """When the last event was."""
        self.tally = Tally(assignment)
        self.trouble = Trouble()
        self.watch = Watch(detection_seconds)
        self.actions: list[Action] = []
        self._members: tuple[str, ...] = ()
        self._dropping: dict[str, Cause] = {}
        self._broken = False
        self._switching: float | None = None
        self._probing_acks = False
        self._fresh_after = now
        self._heir_until: float | None = None
        """Until when a worker that loads the task is waited for, as all members leave."""
        self._apart = 0
        if assignment.generation_floor:
            self._apart = NUMBERS_APART
            self.adoption = Adoption(now + adoption_seconds)

    # Signs.

    def lose(self, worker: str, cause: Cause, now: float) -> None:
        """A connected worker is out."""
        seat = self.seats.pop(worker)
        self.changed_at = now
        self.watch.forget(worker)
        running, forming = self.running, self.forming
        if running is not None and worker in running.members and worker not in running.gone:
            leaves = forming is not None and worker not in forming.members
            needless = forming is None and seat.done and worker != self.first()
            if leaves or needless:
                # A leaver that dies before the boundary breaks the others' exchange: they say so.
                running.gone.add(worker)
                return
        elif forming is None or worker not in forming.members:
            return
        preempted = seat.leaving and cause == "Killed"
        self.tally.lost(worker, seat.index, "Preempted" if preempted else cause, now)
        self.hard_at = now
        self._broken = False

    def broke(self, now: float) -> None:
        """The running group's exchange broke; its members live, as far as is known."""
        self.tally.notice(now)
        if self.hard_at is None:
            self.hard_at = now + self.trouble.delay()
            self._broken = True

    def stale(self, now: float) -> None:
        """A member of the generation that forms has lost its track: it takes another one."""
        self.tally.notice(now)
        self.hard_at = now

    def acked(self, worker: str, now: float) -> None:
        """An ack of the forming generation by one of the running group: the boundary is reached."""
        if self._switching is None and self.running and worker in self.running.members:
            self._switching = now

    def fail(self, failure: Failure) -> None:
        self.failure = failure
        message = f"the task has failed: {failure.message}"
        for worker in self.seats:
            if worker != failure.worker:
                self.send(worker, Stop(reason=failure.reason, message=message))

    # Queries.

    @property
    def parked(self) -> bool:
        """All members of a generation have acked, but they are too few to train."""
        forming = self.forming
        return (
            self.running is None
            and forming is not None
            and bool(forming.members)
            and not forming.missing
        )

    @property
    def needed(self) -> int:
        """The fewest members that a go takes."""
        if self.draining is not None or self.past_end:
            return 1  # To write a checkpoint, or the result.
        return max(1, min(self.assignment.min_workers, self.assignment.workers))

    def group(self) -> list[str]:
        """Who is in a group, running or forming, and there."""
        rounds = [each for each in (self.running, self.forming) if each is not None]
        gone = set() if self.running is None else self.running.gone
        names = {worker: None for each in rounds for worker in each.members if worker not in gone}
        return [worker for worker in names if worker in self.seats]

    def first(self) -> str | None:
        """Rank 0 of the running group, as far as it is there."""
        running = self.running
        return (
            next((w for w in running.members if w not in running.gone), None) if running else None
        )

    def start_at(self) -> float | None:
        """When a group forms out of the workers that are there; None: these are not enough."""
        members = self._starters()
        holders = any(self.seats[worker].holds for worker in members)
        if self.draining is not None:
            return self.changed_at if holders else None
        if len(members) < self.needed:
            return None
        gather = self.assignment.gather_seconds
        at = self.changed_at
        if len(members) < self.assignment.workers:
            at += min(gather, RETURN_SECONDS) if holders else gather
        return at if holders else max(at, self._fresh_after)

    def next_deadline(self) -> float | None:
        """When `settle` has something to do although nothing happens."""
        if self.adoption is not None:
            return self.adoption.deadline
        deadlines = [self.hard_at, self._heir_until, self.watch.deadline(self._doubted_from())]
        if self.forming is None or self.parked:
            free = self.seats.keys() - set(self.running.members if self.running else ())
            deadlines.append(self.trouble.release_at(self.now, free))
        if self.running is None and self.forming is None:
            deadlines.append(self.start_at())
        if self.running is not None and not self.watch.suspicious:
            deadlines.append(self._silent_at())
        return min((each for each in deadlines if each is not None), default=None)

    # What is to be done.

    def settle(self, now: float) -> None:
        """Do what is due."""
        self.now = now
        heir_until, self._heir_until = self._heir_until, None
        if self.adoption is not None and not self._adopt(self.adoption, now):
            return
        self._judge(now)
        if self.hard_at is not None and now >= self.hard_at:
            self._regroup(now)
        if self.forming is not None:
            self._complete(self.forming, now)
        if self.running is None and self.forming is None and self.failure is None:
            start = self.start_at()
            if start is not None and now >= start:
                self._issue(self._starters(), now)
        if self.failure is None:
            if self.running is not None and self.forming is None and self.hard_at is None:
                self._change(self.running, heir_until, now)
            self._dismiss(now)
            self._listen(now)
            self._probe(now)

    def send(self, worker: str, message: FromCoordinator) -> None:
        self.actions.append(Send(worker, message))

    def announce(self, worker: str) -> None:
        """Send the forming generation to a worker, again if need be."""
        forming = self.forming
        if forming is not None:
            # Soft only for whom there is an old group to go on with.
            soft = forming.soft and self.running is not None and worker in self.running.members
            self.send(worker, self._announcement(forming, soft))

    def _adopt(self, adoption: Adoption, now: float) -> bool:
        """Whether it is known now what runs already."""
        outcome = adoption.outcome(now, self.seats)
        if outcome == "wait":
            return False
        self.adoption = None
        if outcome == "none":
            return True
        self._members = adoption.members
        self.heard_at = now
        self.running = Round(adoption.generation, adoption.members, soft=False, since=now)
        self.reporter = (adoption.generation, next(iter(adoption.members), ""))
        if outcome == "regroup":
            missing = adoption.missing()
            for rank, worker in enumerate(adoption.members):
                if worker in missing:
                    self.tally.lost(worker, rank, missing[worker], now)
            self.running.gone.update(missing)
            self.stale(now)
        return True

    def _issue(
        self,
        members: tuple[str, ...],
        now: float,
        *,
        soft: bool = False,
        leavers: Iterable[str] = (),
    ) -> None:
        """Send a new generation to its members, and to who is to leave."""
        self.number += 1 + self._apart
        self._apart = 0
        self._switching = None
        self.forming = Round(self.number, members, soft, now)
        if not soft:
            self.running = None
            self.hard_at = None
            self.watch.reset()
        for worker in (*members, *(each for each in leavers if each not in members)):
            if not soft:
                self.seats[worker].done = False
            self.announce(worker)

    def _announcement(self, forming: Round, soft: bool) -> Generation:
        seats = [self.seats[worker] for worker in forming.members if worker in self.seats]
        members = tuple(Member(worker=s.worker, index=s.index, step=s.step) for s in seats)
        return Generation(generation=forming.number, members=members, soft=soft)

    def _regroup(self, now: float) -> None:
        """A hard generation of those that are left, and of who stands by."""
        parked, group = self.parked, self.group()
        self.hard_at = None
        out = set(self.trouble.barred(now))
        if self._broken:
            self._broken = False
            self._count_break(group, now)
            if self.failure is not None:
                return
            group = self.group()
        if parked or self.trouble.attempts > 1:
            out |= {worker for worker in group if self.seats[worker].leaving}
        if self.draining is not None or self.past_end:
            out |= self.seats.keys() - set(group)  # Too late to take part.
        members = choose(self.seats, group, self.assignment.workers, out)
        self._dropping = {}
        if any(self.seats[worker].holds for worker in members):
            self._issue(members, now, leavers=group)
            return
        # Nobody holds any state, or nobody had any yet: a group starts anew, if one can.
        if self._members:
            self._fresh_after = now + RETURN_SECONDS
        self.running = self.forming = None
        self._members = ()
        self.past_end = False
        self.watch.reset()

    def _count_break(self, group: list[str], now: float) -> None:
        """A generation broke though nobody died; whom its members could not reach stays out."""
        self.tally.count("Broken")
        worst = self.trouble.broke(group)
        if self.trouble.attempts > ATTEMPTS_LIMIT:
            message = (
                f"{ATTEMPTS_LIMIT} generations in a row broke before a step was done, the last by "
                f"{self.trouble.last}; the workers must be able to reach each other"
            )
            self.fail(Failure(reason="WorkerLost", message=message))
        elif worst is not None and len(group) > self.needed:
            self.trouble.bar(worst, now)
            self.lose(worst, "Unreachable", now)
            self.hard_at = None
            self.actions.append(Drop(worst))

    def _complete(self, forming: Round, now: float) -> None:
        """Send the go once all have acked, if they are enough."""
        if not forming.members:
            running = self.running
            if running is None or all(
                w not in self.seats or w in running.gone for w in running.members
            ):
                self.running = self.forming = None
                self._members = ()
            return
        if forming.missing:
            return
        if len(forming.members) >= self.needed:
            self._go(forming, now)
            return
        self.running, forming.soft = None, False
        self.hard_at = None
        leaving = [worker for worker in forming.members if self.seats[worker].leaving]
        out = {*leaving, *self.trouble.barred(now)}
        if leaving or len(choose(self.seats, forming.members, self.assignment.workers, out)) >= (
            self.needed
        ):
            self._regroup(now)

    def _go(self, forming: Round, now: float) -> None:
        difference = digest_difference(forming.acks)
        if difference:
            self.fail(Failure(reason="RefusedWorker", message=difference))
            return
        members = []
        for worker in forming.members:
            seat, step = self.seats[worker], forming.acks[worker].step
            seat.step, seat.holds = step, True
            members.append(Member(worker=worker, index=seat.index, step=step))
        steps = tuple(forming.acks[worker].step for worker in forming.members)
        go = Go(
            generation=forming.number,
            members=tuple(members),
            steps=steps,
            secret=self._secret(),
            protection=self._protection,
        )
        for worker in forming.members:
            self.send(worker, go)
        self._count(forming, max(steps), now)
        self.running, self.forming, self.hard_at = forming, None, None
        forming.soft, self._broken, self.past_end = False, False, False
        self._members = forming.members
        self.heard_at = now
        self.reporter = (forming.number, forming.members[0])
        self.watch.reset()

    def _count(self, forming: Round, step: int, now: float) -> None:
        """Count what this generation has changed."""
        if self._members:
            self.tally.count("Joined", len(set(forming.members) - set(self._members)))
        for cause in self._dropping.values():
            self.tally.count(cause)
        self._dropping = {}
        self.tally.went(step, now)
        self.trouble.went(step, forming.members)

    def _change(self, running: Round, heir_until: float | None, now: float) -> None:
        """A soft generation where others are to be members at the next boundary."""
        group = [w for w in running.members if w in self.seats and w not in running.gone]
        members: tuple[str, ...] = ()
        if self.past_end:
            return  # Its end is near, and better than any change.
        if self.draining is None:
            workers, out = self.assignment.workers, self.trouble.barred(now)
            members = change(self.seats, group, workers, out)
            if not members and workers > 1 and heir_loads(self.seats):
                until = now + HEIR_SECONDS if heir_until is None else heir_until
                if now < until:
                    self._heir_until = until
                    return
            self._dropping = causes(self.seats, group, members, workers)
        if set(members) == set(group):
            return
        self._issue(members, now, soft=True, leavers=group)

    def _dismiss(self, now: float) -> None:
        """Let those go that are in no group and want to, or are to."""
        group = self.group()
        idle = self.running is None and self.forming is None
        leave = [
            seat
            for seat in self.seats.values()
            if (seat.leaving or self.draining is not None)
            and not seat.dismissed
            and seat.worker not in group
        ]
        for seat in leave:
            seat.dismissed = True
            if seat.holds and idle:
                # It may hold the last copy of the training: it writes a checkpoint first.
                self.number += 1 + self._apart
                self._apart = 0
                self.send(seat.worker, Generation(generation=self.number, members=(), soft=True))
            else:
                self.send(seat.worker, Bye())

    def _starters(self) -> tuple[str, ...]:
        """Who forms a group where there is none."""
        out = set(self.trouble.barred(self.now))
        if self.draining is not None:
            out |= {seat.worker for seat in self.seats.values() if not seat.holds}
        return choose(self.seats, (), self.assignment.workers, out)

    # Suspicions.

    def _silent_at(self) -> float:
        """When rank 0 has not reported for too long."""
        return self.heard_at + SILENT_REPORTS * max(self.assignment.report_seconds, 1.0)

    def _listen(self, now: float) -> None:
        first = self.first()
        if first is not None and not self.watch.suspicious and now >= self._silent_at():
            self.heard_at = now
            self.watch.suspect(first, self.tally.reached_step, now)

    def _doubted_from(self) -> float | None:
        """From when on some members are in doubt."""
        if self.running is not None and self.watch.suspicious:
            return self.now
        return doubt.overdue_from(self.running, self.forming, self._switching)

    def _probe(self, now: float) -> None:
        since = self._doubted_from()
        if since is None or now < since or not self.watch.due(now):
            return
        running, forming = self.running, self.forming
        self._probing_acks = running is None or not self.watch.suspicious
        if running is not None and self.watch.suspicious:
            workers = doubt.suspected(running, forming, self.seats.keys())
        else:
            workers = doubt.unacked(running, forming, self._switching, now)
        probe = Probe(nonce=self.watch.ask(workers, now))
        for worker in workers:
            self.send(worker, probe)

    def _judge(self, now: float) -> None:
        """Act on what the probes have shown."""
        current = self.forming if self._probing_acks else self.running
        if current is None:
            self.watch.drop()
            return
        verdict = self.watch.judge(current.number, self._probing_acks, self.trouble.attempts, now)
        if verdict is None:
            return
        out: dict[str, Cause] = dict.fromkeys(verdict.silent, "Unreachable")
        if self._probing_acks or not stands(self.seats, current, verdict.stuck):
            out |= dict.fromkeys(verdict.stuck, "Hung")
        for worker, cause in out.items():
            if worker in self.seats:
                self.lose(worker, cause, now)
                self.actions.append(Drop(worker, BEGIN_ANEW if cause == "Hung" else None))
                if cause == "Hung" or self.trouble.silent(worker):
                    self.trouble.bar(worker, now)  # it may well do so again
        if verdict.broken and not out:
            self.trouble.fault("the coordinator", None, "no member gets any further")
            self.broke(now)
