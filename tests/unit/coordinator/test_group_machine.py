"""The group under a hostile network: whatever is lost, repeated or dies, and in whatever order.

A model of the workers plays against the real state machine. Held at every step: generations only
rise; a generation has one list of members; a go needs an ack of every member. At the end the
faults stop, and the group must come to an end or train.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from shardwise.coordinator.group import Group, Send
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
    Phase,
    Refusal,
    Refused,
    StepReport,
    Stop,
)
from shardwise.coordinator.report import Assignment

GRACE = 10.0
indices = st.integers(0, 2)
places = st.integers(0, 5)
rarely = st.sampled_from([False, False, False, True])


@dataclass
class Worker:
    """What a worker does, as far as the coordinator can tell."""

    index: int
    alive: bool = True
    connected: bool = False
    phase: Phase = "idle"
    generation: int = 0
    step: int = 0
    up: list[FromWorker] = field(default_factory=list)
    down: list[FromCoordinator] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"w-{self.index}"

    def hello(self) -> Hello:
        return Hello(
            token="",
            worker=self.name,
            index=self.index,
            fingerprint={},
            generation=self.generation,
            phase=self.phase,
            step=self.step,
        )

    def take(self, message: FromCoordinator) -> None:
        match message:
            case Generation() if message.generation > self.generation and self.phase != "finished":
                self.generation, self.phase = message.generation, "forming"
                self.up.append(Ack(generation=self.generation, step=self.step, digest="d"))
            case Go() if message.generation == self.generation and self.phase == "forming":
                self.phase = "training"
                self.step = max(message.steps)
            case Stop() | Refusal() | Bye():
                self.alive = False


class Chaos(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.issued = 0
        self.acked: dict[int, set[str]] = {}
        self.gone: dict[int, tuple[Member, ...]] = {}

    @initialize(workers=st.sampled_from([1, 2, 2, 3, 3]), calm=st.booleans())
    def begin(self, workers: int, calm: bool) -> None:
        self.workers = [Worker(index) for index in range(workers)]
        self.group = self.fresh(0)
        if calm:
            self.the_network_is_calm()

    def fresh(self, floor: int) -> Group:
        assignment = Assignment(
            task="t",
            name="t",
            workers=len(self.workers),
            trainer={},
            generation_floor=floor,
        )
        return Group(assignment, GRACE)

    def worker(self, index: int) -> Worker:
        return self.workers[index % len(self.workers)]

    # What happens to the group, and what must hold of its answers.

    def absorb(self, sends: Iterable[Send]) -> None:
        batch = [send.message for send in sends if isinstance(send.message, Generation)]
        if batch:
            assert all(each == batch[0] for each in batch)
            assert batch[0].generation > self.issued, "generations rise"
            self.issued = batch[0].generation
            assert [member.index for member in batch[0].members] == list(range(len(self.workers)))
        for send in sends:
            match send.message:
                case Go() as go:
                    names = {member.worker for member in go.members}
                    assert self.gone.setdefault(go.generation, go.members) == go.members
                    assert names <= self.acked.get(go.generation, set()), "all have acked"
                    assert len(go.steps) == len(self.workers)
                    assert go.generation == self.group.generation
                case KeyValue() as pushed:
                    assert pushed.generation == self.group.generation
            worker = next(each for each in self.workers if each.name == send.worker)
            if worker.connected:
                worker.down.append(send.message)

    def connect(self, worker: Worker) -> None:
        """Its former connection, if any, is replaced with all that was under way on it."""
        worker.up.clear()
        worker.down.clear()
        try:
            sends = self.group.joined(worker.hello(), self.now)
        except Refused:
            self.disconnect(worker)
            worker.alive = False
            return
        worker.connected = True
        self.absorb(sends)
        if worker.phase == "finished":
            worker.up.append(Finished(result={"steps": worker.step}))

    def disconnect(self, worker: Worker) -> None:
        worker.up.clear()
        worker.down.clear()
        if worker.connected:
            worker.connected = False
            self.absorb(self.group.disconnected(worker.name, self.now))

    def deliver_up(self, worker: Worker, message: FromWorker) -> None:
        if isinstance(message, Ack):
            self.acked.setdefault(message.generation, set()).add(worker.name)
        ended = self.group.state if self.group.state in ("finished", "failed") else None
        self.absorb(self.group.received(worker.name, message, self.now))
        assert ended is None or self.group.state == ended, "an end is an end"

    def deliver_down(self, worker: Worker, message: FromCoordinator) -> None:
        worker.take(message)
        if not worker.alive:
            self.disconnect(worker)

    # The workers' and the network's doing.

    @rule(index=indices)
    def a_worker_connects(self, index: int) -> None:
        worker = self.worker(index)
        if worker.alive:
            self.connect(worker)

    @rule(index=indices)
    def a_connection_breaks(self, index: int) -> None:
        self.disconnect(self.worker(index))

    @rule(index=indices, really=rarely)
    def a_worker_dies(self, index: int, really: bool) -> None:
        worker = self.worker(index)
        worker.alive = worker.alive and not really
        self.disconnect(worker)

    @rule(index=indices)
    def a_dead_worker_is_replaced(self, index: int) -> None:
        if not self.worker(index).alive:
            self.workers[index % len(self.workers)] = Worker(index % len(self.workers))

    @rule(index=indices, place=places, repeat=st.booleans())
    def a_message_arrives_up(self, index: int, place: int, repeat: bool) -> None:
        worker = self.worker(index)
        if worker.up:
            place %= len(worker.up)
            message = worker.up[place] if repeat else worker.up.pop(place)
            self.deliver_up(worker, message)

    @rule(index=indices, place=places, repeat=st.booleans())
    def a_message_arrives_down(self, index: int, place: int, repeat: bool) -> None:
        worker = self.worker(index)
        if worker.down:
            place %= len(worker.down)
            message = worker.down[place] if repeat else worker.down.pop(place)
            self.deliver_down(worker, message)

    @rule(index=indices, up=st.booleans())
    def a_message_is_lost(self, index: int, up: bool) -> None:
        worker = self.worker(index)
        del (worker.up if up else worker.down)[:1]

    @rule()
    def the_network_is_calm(self) -> None:
        """What runs between faults, and lets the chaos reach deeper."""
        for worker in self.workers:
            if worker.alive and not worker.connected:
                self.connect(worker)
        self.everything_in_flight_arrives()
        self.time_passes(0.06)
        self.everything_in_flight_arrives()

    @rule()
    def everything_in_flight_arrives(self) -> None:
        for _ in range(20):
            for worker in self.workers:
                if worker.up:
                    self.deliver_up(worker, worker.up.pop(0))
                if worker.down:
                    self.deliver_down(worker, worker.down.pop(0))

    @rule(index=indices)
    def an_exchange_breaks(self, index: int) -> None:
        worker = self.worker(index)
        if worker.connected and worker.phase == "training":
            worker.phase = "forming"
            worker.up.append(Fault(generation=worker.generation, message="connection reset"))

    @rule()
    def a_step_is_done(self) -> None:
        in_step = {(worker.phase, worker.generation) for worker in self.workers}
        if in_step == {("training", self.group.generation)}:
            for worker in self.workers:
                worker.step += 1

    @rule(index=indices, age=st.integers(0, 2))
    def something_is_said(self, index: int, age: int) -> None:
        worker = self.worker(index)
        generation = max(0, worker.generation - age)
        if worker.connected:
            worker.up.append(KeyValue(generation=generation, key="k", value=b"v"))
            worker.up.append(
                StepReport(
                    generation=generation,
                    step=worker.step,
                    total_steps=100,
                    epoch=0,
                    loss=1.0,
                    samples_per_second=1.0,
                    metrics={},
                )
            )

    @rule(index=indices)
    def a_worker_finishes(self, index: int) -> None:
        worker = self.worker(index)
        if worker.connected and worker.phase == "training" and worker.step > 0:
            worker.phase = "finished"
            worker.up.append(Finished(result={"steps": worker.step}))

    @rule(index=indices, really=rarely)
    def user_code_fails(self, index: int, really: bool) -> None:
        worker = self.worker(index)
        if worker.connected and really:
            worker.up.append(Failed(reason="UserCodeFailed", message="ValueError: x"))

    @rule(seconds=st.sampled_from([0.01, 0.06, 1.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while (deadline := self.group.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.absorb(self.group.tick(self.now))
            again = self.group.next_deadline()
            assert again is None or again > self.now, "what is due is done"
        self.now = until
        self.absorb(self.group.tick(self.now))

    @rule(really=rarely)
    def the_coordinator_restarts(self, really: bool) -> None:
        if not really:
            return
        self.group = self.fresh(self.group.generation)
        for worker in self.workers:
            worker.connected = False
            worker.up.clear()
            worker.down.clear()

    # The faults stop.

    def teardown(self) -> None:
        if not hasattr(self, "group"):
            return
        # A group that never trained waits for a replacement for as long as it takes.
        trained = any(
            worker.alive and (worker.step > 0 or worker.phase in ("training", "finished"))
            for worker in self.workers
        )
        for index, worker in enumerate(self.workers):
            if not worker.alive and not trained:
                self.workers[index] = Worker(index)
        for worker in self.workers:
            if worker.alive:
                self.connect(worker)
        for _ in range(60):
            self.everything_in_flight_arrives()
            if any(not worker.alive for worker in self.workers):
                for index in range(len(self.workers)):
                    self.an_exchange_breaks(index)
            self.everything_in_flight_arrives()
            self.time_passes(11.0)
        if any(worker.alive for worker in self.workers):
            assert self.group.state in ("training", "finished", "failed"), self.group.report()
        if self.group.state == "training":
            generations = {worker.generation for worker in self.workers if worker.alive}
            assert generations == {self.group.generation}


Chaos.TestCase.settings = settings(
    max_examples=400,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestChaos = Chaos.TestCase
