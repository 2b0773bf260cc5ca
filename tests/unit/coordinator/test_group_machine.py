"""The group under a hostile network: whatever is lost, repeated or dies, and in whatever order.

A model of the workers plays against the real state machine. Held at every step: a generation has
one list of members and generations rise; a go needs an ack of every member; the highest step is a
member's; a group steps as one. At the end the faults stop, and the task must come to its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from shardwise.coordinator.group import Group
from shardwise.coordinator.group_actions import Action, Drop
from shardwise.coordinator.protocol import Ack, FromCoordinator, FromWorker, Generation, Go, Refused
from shardwise.coordinator.report import Assignment

from .simulation import Job, Worker

POOL = 4
TOTAL = 12
indices = st.integers(0, POOL - 1)
places = st.sampled_from([0, 0, 0, 1, 2])
rarely = st.sampled_from([False, False, False, True])


class Chaos(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lists: dict[int, tuple[str, ...]] = {}
        self.acked: dict[int, dict[str, int]] = {}
        self.drained = False

    @initialize(
        workers=st.sampled_from([1, 2, 2, 3, 3, 4]),
        few=st.integers(1, 3),
        calm=st.integers(0, 3),
        all_recover=st.booleans(),
    )
    def begin(self, workers: int, few: int, calm: int, all_recover: bool) -> None:
        self.all_recover = all_recover
        self.wanted = workers, min(few, workers)
        self.job = Job([Worker(index) for index in range(workers)], TOTAL)
        self.group = self.fresh(0)
        for _ in range(calm):
            self.the_network_is_calm()

    def fresh(self, floor: int) -> Group:
        assignment = Assignment(
            task="t",
            name="t",
            workers=self.wanted[0],
            min_workers=self.wanted[1],
            gather_seconds=0.5,
            trainer={},
            generation_floor=floor,
        )
        return Group(assignment, self.now, secret=lambda: bytes(32))

    def worker(self, index: int) -> Worker:
        return self.job.workers[index % len(self.job.workers)]

    # What happens to the group, and what must hold of its answers.

    def absorb(self, actions: Iterable[Action]) -> None:
        for action in actions:
            worker = self.job.named(action.worker)
            if isinstance(action, Drop):
                if worker is not None:
                    worker.connection_lost()
                    if action.last is not None and not worker.stopped:
                        worker.alive = False  # told that it hangs, it ends
                continue
            match action.message:
                case Generation(generation=number, members=members):
                    names = tuple(member.worker for member in members)
                    assert self.lists.setdefault(number, names) == names, "one list for a number"
                    assert number == max(self.lists), "generations rise"
                    assert len({member.index for member in members}) == len(members)
                case Go(generation=number, members=members, steps=steps):
                    acks = self.acked[number]
                    assert {m.worker: s for m, s in zip(members, steps, strict=True)} == {
                        name: acks[name] for name in self.lists[number]
                    }, "all have acked, at these steps"
                case _:
                    pass
            if worker is not None and worker.connected:
                worker.down.append(action.message)

    def connect(self, worker: Worker) -> None:
        """Its former connection, if any, is replaced with all that was under way on it."""
        worker.connection_lost()
        try:
            actions = self.group.joined(worker.hello(), self.now)
        except Refused:
            worker.alive = False
            return
        worker.connection_made()
        self.absorb(actions)

    def disconnect(self, worker: Worker) -> None:
        was = worker.connected
        worker.connection_lost()
        if was:
            self.absorb(self.group.disconnected(worker.name, self.now))

    def deliver_up(self, worker: Worker, message: FromWorker) -> None:
        if isinstance(message, Ack):
            acks = self.acked.setdefault(message.generation, {})
            assert acks.setdefault(worker.name, message.step) == message.step
        ended = self.group.state if self.group.ended else None
        self.absorb(self.group.received(worker.name, message, self.now))
        assert ended is None or self.group.state == ended, "an end is an end"

    def deliver_down(self, worker: Worker, message: FromCoordinator) -> None:
        worker.take(message)
        self.bury(worker)

    def bury(self, worker: Worker) -> None:
        """What is still on its way when a worker ends arrives before its connection's end."""
        if not worker.alive and worker.connected:
            while worker.up and worker.connected:
                self.deliver_up(worker, worker.up.pop(0))
            self.disconnect(worker)

    # The workers' and the network's doing.

    @rule(index=indices)
    def a_worker_connects(self, index: int) -> None:
        worker = self.worker(index)
        if worker.alive and not worker.stopped:
            self.connect(worker)

    @rule(index=indices)
    def a_worker_is_loaded(self, index: int) -> None:
        worker = self.worker(index)
        if worker.connected and worker.acts:
            worker.loads()

    @rule(index=indices)
    def a_connection_breaks(self, index: int) -> None:
        self.disconnect(self.worker(index))

    @rule(index=indices, seen=st.booleans())
    def a_worker_dies(self, index: int, seen: bool) -> None:
        worker = self.worker(index)
        worker.alive = False
        if seen:
            self.disconnect(worker)
        else:
            self.absorb(self.group.lost(worker.name, "Killed", self.now))
            worker.connection_lost()

    @rule(index=indices, connects=st.booleans())
    def a_dead_worker_is_replaced(self, index: int, connects: bool) -> None:
        for place, worker in enumerate(self.job.workers):
            if not worker.alive and place >= index % len(self.job.workers):
                self.disconnect(worker)
                self.job.workers[place] = Worker(worker.index)
                if connects:
                    self.connect(self.job.workers[place])
                return

    @rule()
    def one_more_worker_comes(self) -> None:
        if len(self.job.workers) < POOL:
            self.job.workers.append(Worker(len(self.job.workers)))
            self.connect(self.job.workers[-1])

    @rule(index=indices)
    def a_worker_is_asked_to_leave(self, index: int) -> None:
        worker = self.worker(index)
        if worker.connected and worker.acts:
            worker.asked_to_leave()
            self.bury(worker)

    @rule(workers=st.integers(1, 4), few=st.integers(1, 2))
    def the_job_is_resized(self, workers: int, few: int) -> None:
        self.wanted = workers, min(few, workers)
        self.absorb(self.group.resize(*self.wanted, self.now))

    @rule(index=indices, stopped=st.booleans())
    def a_worker_hangs(self, index: int, stopped: bool) -> None:
        worker = self.worker(index)
        worker.stopped, worker.hung = stopped, not stopped

    @rule(index=indices)
    def a_worker_goes_on(self, index: int) -> None:
        worker = self.worker(index)
        if worker.alive:
            worker.goes_on()
            self.bury(worker)

    @rule(index=indices, place=places, repeat=rarely)
    def a_message_arrives_up(self, index: int, place: int, repeat: bool) -> None:
        worker = self.worker(index)
        if worker.up and worker.connected and not worker.stopped:
            place %= len(worker.up)
            message = worker.up[place] if repeat else worker.up.pop(place)
            self.deliver_up(worker, message)

    @rule(index=indices, place=places, repeat=rarely)
    def a_message_arrives_down(self, index: int, place: int, repeat: bool) -> None:
        worker = self.worker(index)
        if worker.down and not worker.stopped:
            place %= len(worker.down)
            message = worker.down[place] if repeat else worker.down.pop(place)
            self.deliver_down(worker, message)

    @rule(index=indices, up=st.booleans())
    def a_message_is_lost(self, index: int, up: bool) -> None:
        worker = self.worker(index)
        del (worker.up if up else worker.down)[:1]

    @rule()
    def everything_in_flight_arrives(self) -> None:
        for _ in range(100):
            busy = False
            for worker in list(self.job.workers):
                if worker.up and worker.connected and not worker.stopped:
                    busy = True
                    self.deliver_up(worker, worker.up.pop(0))
                if worker.down and not worker.stopped:
                    busy = True
                    self.deliver_down(worker, worker.down.pop(0))
            if not busy:
                return
        raise AssertionError("messages without end")

    @rule()
    def the_network_is_calm(self) -> None:
        """What runs between faults, and lets the chaos reach deeper."""
        for worker in list(self.job.workers):
            if worker.alive and not worker.connected and not worker.stopped:
                self.connect(worker)
            if worker.connected and worker.acts:
                worker.loads()
        self.everything_in_flight_arrives()
        self.time_passes(0.6)
        self.everything_in_flight_arrives()
        self.groups_go_on()
        self.everything_in_flight_arrives()

    @rule()
    def groups_go_on(self) -> None:
        for worker in list(self.job.workers):
            self.job.group_joins(worker)
        for worker in list(self.job.workers):
            peers = self.job.peers(worker)
            if peers is None or worker is next((peer for peer in peers if peer.acts), None):
                self.job.group_steps(worker)
        for worker in list(self.job.workers):
            self.bury(worker)

    @rule(index=indices, committed=st.integers(0, 3))
    def an_exchange_breaks(self, index: int, committed: int) -> None:
        """Some members have committed the step by then."""
        self.job.group_steps(self.worker(index), committed)
        for worker in list(self.job.workers):
            self.bury(worker)

    @rule(index=indices)
    def a_worker_waits(self, index: int) -> None:
        worker = self.worker(index)
        if worker.phase == "training" and worker.acts:
            worker.suspects()

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.6, 3.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(1000):
            deadline = self.group.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.absorb(self.group.tick(self.now))
        else:
            raise AssertionError(f"what is due at {deadline} is not done at {self.now}")
        self.now = until
        self.absorb(self.group.tick(self.now))

    @rule(really=rarely, unrecorded=st.integers(0, 5))
    def the_coordinator_restarts(self, really: bool, unrecorded: int) -> None:
        """The next one knows the generations of its job's status, which may be a little old."""
        number = self.group.report().generation
        if not really or not number or self.group.ended:
            return
        self.group = self.fresh(max(1, number - unrecorded))
        for worker in self.job.workers:
            worker.connection_lost()

    @rule(really=rarely)
    def the_job_is_suspended(self, really: bool) -> None:
        if really and not self.drained:
            self.drained = True

    # The faults stop.

    def teardown(self) -> None:
        if not hasattr(self, "group"):
            return
        for worker in list(self.job.workers):
            if self.all_recover:
                worker.goes_on()
            self.bury(worker)
            if worker.alive and not worker.stopped:
                self.disconnect(worker)
        if self.drained:
            self.absorb(self.group.drain("suspended", self.now))
        for _ in range(400):
            if self.group.state == "finished" or (self.drained and self.nobody_is_left()):
                return
            if not self.drained:
                self.enough_are_there()
            self.the_network_is_calm()
        raise AssertionError(f"no end: {self.group.report()} {self.job.workers}")

    def enough_are_there(self) -> None:
        """As the operator sees to: but who hangs may hang for ever."""
        fine = [worker for worker in self.job.workers if worker.acts]
        while len(fine) < self.wanted[1]:
            fine.append(Worker(len(self.job.workers)))
            self.job.workers.append(fine[-1])

    def nobody_is_left(self) -> bool:
        return not any(worker.acts for worker in self.job.workers)


EXAMPLES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 300

Chaos.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestChaos = Chaos.TestCase
