"""Workers as the coordinator sees them, and the network between: a model without any I/O.

A model worker does what the real one does at the level of the protocol: it loads, acks, joins,
steps, switches at boundaries, finishes, leaves. What it computes is one number, its step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardwise.coordinator.protocol import (
    Ack,
    Bye,
    Fault,
    Finished,
    FromCoordinator,
    FromWorker,
    Generation,
    Go,
    Hello,
    Leave,
    Phase,
    Probe,
    Pulse,
    Ready,
    Refusal,
    StepReport,
    Stop,
    Suspect,
)


@dataclass(eq=False)
class Worker:
    """One process. `stopped`: the whole process stands still; `hung`: its main thread does."""

    index: int
    alive: bool = True
    connected: bool = False
    stopped: bool = False
    hung: bool = False
    leaving: bool = False
    phase: Phase = "loading"
    generation: int = 0
    members: tuple[str, ...] = ()
    step: int = 0
    announced: Generation | None = None
    go: Go | None = None
    deaf_to: int = 0
    """The generation whose go it waits for no more, since its connection broke meanwhile."""
    waits: int = 0
    up: list[FromWorker] = field(default_factory=list)
    down: list[FromCoordinator] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"w-{self.index}"

    @property
    def acts(self) -> bool:
        return self.alive and not self.stopped and not self.hung

    def hello(self) -> Hello:
        return Hello(
            token="",
            worker=self.name,
            index=self.index,
            fingerprint={} if self.phase == "loading" else {"threads": 1},
            generation=self.generation,
            phase=self.phase,
            step=self.step,
            members=self.members,
        )

    def connection_lost(self) -> None:
        self.connected = False
        self.up.clear()
        self.down.clear()
        if self.phase == "forming":
            self.deaf_to, self.go = self.generation, None

    def connection_made(self) -> None:
        self.connected = True
        if self.leaving:
            self.up.append(Leave())
        if self.phase == "finishing":
            self.say_finished()

    def goes_on(self) -> None:
        """It stood still, and does not any more."""
        self.stopped = self.hung = False
        hard = self.announced is not None and not self.announced.soft
        if hard and self.superseded and self.phase == "training":
            self.phase = "forming"
        self.go_on()

    @property
    def superseded(self) -> bool:
        return self.announced is not None and self.announced.generation > self.generation

    def loads(self) -> None:
        if self.phase == "loading":
            self.phase = "ready"
            self.up.append(Ready(fingerprint={"threads": 1}))

    def take(self, message: FromCoordinator) -> None:
        """What the control thread does, and the main thread where it waits."""
        match message:
            case Generation():
                if self.announced is None or message.generation > self.announced.generation:
                    self.announced = message
                    if not message.soft and self.phase == "training" and not self.hung:
                        self.phase = "forming"
                    self.go_on()
            case Go():
                if message.generation == self.generation and message.generation > self.deaf_to:
                    self.go = message
            case Probe(nonce=nonce):
                waits = self.phase == "training"
                activity = "computing" if self.hung else "exchanging" if waits else "waiting"
                self.up.append(
                    Pulse(
                        nonce=nonce,
                        generation=self.generation,
                        step=self.step,
                        phase=self.phase,
                        activity=activity,  # type: ignore[arg-type]
                        age_seconds=100.0 if self.hung else 0.3 * self.waits,
                        usual_seconds=0.1,
                    )
                )
            case Stop() | Refusal() | Bye():
                self.alive = False

    def go_on(self) -> None:
        """Take up the newest generation, where no group holds it back."""
        announced = self.announced
        if self.phase in ("training", "loading") or self.hung:
            return
        if announced is None or announced.generation <= self.generation:
            return
        names = tuple(member.worker for member in announced.members)
        self.generation, self.go = announced.generation, None
        if self.name in names:
            self.phase, self.members = "forming", names
            self.up.append(Ack(generation=self.generation, step=self.step, digest=f"{self.step}"))
        elif self.leaving or not names:
            self.alive = False
        else:
            self.phase, self.members = "ready", ()

    def exchange_breaks(self) -> None:
        """Its group is broken for it."""
        self.phase, self.go = "forming", None
        self.up.append(Fault(generation=self.generation, message="reset"))
        self.go_on()

    def suspects(self) -> None:
        self.waits += 1
        self.up.append(Suspect(generation=self.generation, step=self.step, waited_seconds=1.0))

    def steps_to(self, step: int, total: int) -> None:
        self.step, self.waits = step, 0
        if self.members[0] == self.name:
            self.up.append(report(self.generation, step, total))

    def say_finished(self) -> None:
        first = bool(self.members) and self.members[0] == self.name
        self.up.append(Finished(result={"steps": self.step} if first else None))

    def asked_to_leave(self) -> None:
        self.leaving = True
        self.up.append(Leave())
        if self.phase in ("loading", "ready", "finishing"):
            self.alive = False


def report(generation: int, step: int, total: int = 100) -> StepReport:
    return StepReport(
        generation=generation,
        step=step,
        total_steps=total,
        epoch=0,
        loss=1.0,
        samples_per_second=1.0,
        metrics={},
        seconds={"productive": 1.0},
    )


class Job:
    """The workers' own doing: their groups form, step and break as the model's rules say."""

    def __init__(self, workers: list[Worker], total: int) -> None:
        self.workers = workers
        self.total = total

    def named(self, name: str) -> Worker | None:
        return next((each for each in self.workers if each.name == name and each.alive), None)

    def peers(self, worker: Worker) -> list[Worker] | None:
        """The members of its generation; None where one of them cannot come any more."""
        found = [self.named(name) for name in worker.members]
        if any(
            peer is None
            or peer.generation != worker.generation
            or (peer.go is None and (peer.phase != "forming" or peer.deaf_to == worker.generation))
            for peer in found
        ):
            return None
        return [peer for peer in found if peer is not None]

    def group_joins(self, worker: Worker) -> None:
        """All members have their go: laggards copy from the highest, and all train."""
        if worker.go is None or worker.phase != "forming" or not worker.acts:
            return
        peers = self.peers(worker)
        if peers is None:
            worker.exchange_breaks()
        elif all(peer.go is not None and peer.acts for peer in peers):
            highest = max(peer.step for peer in peers)
            assert highest == max(worker.go.steps), "the highest is a member, where the go says"
            for peer in peers:
                assert peer.members == worker.members
                peer.phase, peer.step, peer.waits = "training", highest, 0

    def group_steps(self, worker: Worker, committed: int | None = None) -> None:
        """Its group does a step, or waits; `committed` members do it before the exchange breaks."""
        if worker.phase != "training" or not worker.acts:
            return
        peers = self.peers(worker)
        if peers is None:
            worker.exchange_breaks()
            return
        if not all(peer.phase == "training" and peer.acts for peer in peers):
            worker.suspects()
            return
        assert len({peer.step for peer in peers}) == 1, "one step for all members"
        if worker.step >= self.total:
            for peer in peers:
                peer.phase = "finishing"
                peer.say_finished()
                peer.go_on()
            return
        flagged = any(peer.superseded for peer in peers)
        for peer in peers[:committed]:
            peer.steps_to(peer.step + 1, self.total)
        for peer in peers:
            if committed is not None:
                peer.exchange_breaks()
            elif flagged:
                peer.phase, peer.go = "forming", None
                peer.go_on()
