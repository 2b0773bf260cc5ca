"""The worker's side of the control protocol: a thread that talks while training runs.

It reconnects for as long as the worker lives: training never waits for the coordinator, except to
change membership. It answers probes by itself, so that a training thread that hangs shows, reports
an exchange that takes too long, and breaks the old group's transfers off when a hard generation
comes. The training thread asks it for generations, gos and rendezvous values.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from shardwise.coordinator.protocol import (
    Bye,
    Ended,
    Finished,
    FromCoordinator,
    FromWorker,
    Generation,
    Go,
    Hello,
    KeyValue,
    Leave,
    Phase,
    Probe,
    ProtocolError,
    Pulse,
    Ready,
    Refusal,
    Stop,
    Suspect,
    Welcome,
    decode,
)
from shardwise.coordinator.report import SUSPICION_PART, Assignment
from shardwise.engine.group import Interrupted
from shardwise.worker.activity import ActivityLog
from shardwise.worker.connection import Connection
from shardwise.worker.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
Scalar = str | int | float

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
TICK_SECONDS = 0.05
DETECTION_SECONDS = 0.5
"""Where the assignment does not say how long it may take to notice a peer that hangs."""
LEAVE_SECONDS = 2.0
"""For the coordinator to let a worker out that asked for it between two groups."""
SILENCE_SECONDS = 2.0
"""After a suspicion a coordinator that says nothing for this long is looked for anew."""


class Superseded(Exception):  # noqa: N818 - an event, not a fault
    """A newer generation was announced, or the connection was renewed while one formed."""


@dataclass(frozen=True, slots=True)
class State:
    """What a hello says of this worker, should the connection have to be renewed."""

    generation: int = 0
    phase: Phase = "loading"
    step: int = 0
    members: tuple[str, ...] = ()


class Control:
    """The connection. All waiting methods raise TimeoutError when `timeout` seconds have passed.

    Args:
        activity: what the training thread does.
        on_end: called from the connection's thread when the coordinator ends or refuses this
            worker: a Stop or a Refusal. It must not return to training.
        on_hard: called from the connection's thread with the number of each hard generation.
        finished: what this worker has told of other tasks, for a coordinator that is new.
    """

    def __init__(
        self,
        settings: Settings,
        fingerprint: Mapping[str, Scalar],
        activity: ActivityLog,
        on_end: Callable[[Stop | Refusal], None],
        on_hard: Callable[[int], None],
        finished: Sequence[Ended] = (),
    ) -> None:
        self._settings, self._activity = settings, activity
        self._fingerprint: dict[str, Scalar] = dict(fingerprint)
        self._on_end, self._on_hard = on_end, on_hard
        self._finished = tuple(finished)
        self._closed = False
        self._changed = threading.Condition()
        self._link: Connection | None = None
        self._connections = 0
        self._assignment: Assignment | None = None
        self._generation: Generation | None = None
        self._hard = 0
        self._go: Go | None = None
        self._values: dict[tuple[int, str], bytes] = {}
        self._bye = False
        self._leaving = False
        self._state = State()
        self._said = self._state
        self._heard = self._suspected = self._suspected_wait = 0.0
        threading.Thread(target=self._run, name="control", daemon=True).start()

    # What the training thread tells.

    def set_state(self, state: State) -> None:
        self._state = state

    def ready(self, fingerprint: Mapping[str, Scalar]) -> None:
        """The task is loaded: from now on this worker may be put into a generation."""
        with self._changed:  # no connection may be renewed between the two
            self._fingerprint |= fingerprint
            self._state = replace(self._state, phase="ready")
        self.send(Ready(fingerprint=fingerprint))

    def leave(self) -> None:
        """Ask to be let out at the next step boundary; said again to each new coordinator."""
        self._leaving = True
        self.send(Leave())
        with self._changed:
            self._changed.notify_all()

    @property
    def leaving(self) -> bool:
        return self._leaving

    @property
    def over(self) -> bool:
        """The task has ended, and the coordinator needs nothing more of this worker."""
        return self._bye

    @property
    def connected(self) -> bool:
        return self._link is not None

    def send(self, message: FromWorker) -> bool:
        """Send if there is a connection; whether it was handed to the kernel."""
        link = self._link
        return link is not None and link.send(message)

    # What the training thread asks.

    def check(self, generation: int) -> None:
        """Whether the group of this generation may go on.

        Raises:
            Interrupted: a hard generation has superseded it.
        """
        if self._hard > generation:
            raise Interrupted(f"generation {self._hard} supersedes {generation}")

    def superseded(self, generation: int) -> bool:
        """Whether any newer generation was announced, hard or soft."""
        latest = self._generation
        return latest is not None and latest.generation > generation

    def wait_assignment(self, timeout: float) -> Assignment | None:
        """What this worker is to do; None once there is nothing, or it was asked to leave."""

        def found() -> tuple[Assignment | None] | None:
            if self._assignment is not None:
                return (self._assignment,)
            return (None,) if self._bye or self._leaving else None

        return self._wait(found, timeout, "an assignment")[0]

    def close(self) -> None:
        """End the connection and its thread; nothing more is said or heard."""
        self._closed = True
        link = self._link
        if link is not None:
            link.shut_down()

    def wait_generation(self, after: int, timeout: float) -> Generation | None:
        """The latest generation above `after`; None once there is nothing to wait for any more:
        the task has ended (`over`), or this worker leaves and no generation lets it."""

        def newer() -> tuple[Generation | None] | None:
            latest = self._generation
            if latest is not None and latest.generation > after:
                return (latest,)
            return (None,) if self._bye else None

        def newer_or_leaving() -> tuple[Generation | None] | None:
            return newer() or ((None,) if self._leaving else None)

        found = self._wait(newer_or_leaving, timeout, "a generation")[0]
        if found is not None or self._bye:
            return found
        try:
            # Where all leave at once, the generation that says so tells who saves the state.
            return self._wait(newer, LEAVE_SECONDS, "a generation")[0]
        except TimeoutError:
            return None

    def wait_go(self, generation: int, timeout: float) -> Go | None:
        """The go of a generation; None when the task has ended instead.

        Raises:
            Superseded: a newer generation came, or the coordinator was lost meanwhile.
        """
        connection = self._connections

        def go() -> tuple[Go | None] | None:
            if self._bye:
                return (None,)
            if self._go and self._go.generation == generation:
                return (self._go,)
            self._check_current(generation, connection)
            if self.superseded(generation):
                raise Superseded(f"a newer generation supersedes {generation}")
            return None

        return self._wait(go, timeout, "all members")[0]

    def wait_value(self, generation: int, key: str, timeout: float) -> bytes:
        """A value of the generation's rendezvous store.

        Raises:
            Superseded: a newer generation came, or the coordinator was lost meanwhile.
        """
        connection = self._connections

        def value() -> bytes | None:
            # A soft generation that comes now waits for this one's first step boundary.
            self._check_current(generation, connection)
            return self._values.get((generation, key))

        return self._wait(value, timeout, f"the rendezvous value {key!r}")

    def wait_end(self, message: FromWorker, after: int, timeout: float) -> bool:
        """Send `message` until the coordinator says bye, over new connections if need be.

        Returns:
            True for a bye, or where a worker without a result was asked to leave meanwhile; False
            for a generation above `after`, which needs it again.
        """
        deadline = time.monotonic() + timeout
        patient = isinstance(message, Finished) and message.result is None
        while True:
            connection = self._connections
            sent = self.send(message)

            def news(before: int = connection, sent: bool = sent) -> bool | None:
                renewed = self._connections != before or (not sent and self._link is not None)
                leaves = patient and self._leaving
                return self._bye or leaves or self.superseded(after) or renewed or None

            self._wait(news, deadline - time.monotonic(), "bye")
            if self._bye or (patient and self._leaving):
                return True
            if self.superseded(after):
                return False

    def _check_current(self, generation: int, connection: int) -> None:
        if self._hard > generation:
            raise Superseded(f"generation {self._hard} supersedes {generation}")
        if self._connections != connection:
            raise Superseded(f"the coordinator was lost while generation {generation} formed")

    def _wait(self, value: Callable[[], T | None], timeout: float, what: str) -> T:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (found := value()):
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no {what} within {timeout:.0f} s")
            return found

    # The connection's thread.

    def _run(self) -> None:
        attempt = 0
        while not self._closed:
            welcomed = False
            try:
                link = Connection(self._settings, self._hello())
                self._heard = time.monotonic()
                try:
                    for line in link.lines(TICK_SECONDS):
                        if self._closed:
                            return
                        if line is None:
                            self._suspect()
                        else:
                            self._heard = time.monotonic()
                            self._take(link, decode(line))
                            welcomed = True
                finally:
                    self._link = None
                    link.close()
            except (OSError, ProtocolError) as error:
                if self._closed:
                    return
                if attempt in (0, 10, 100):
                    log.warning("the control connection: %s; trying on", error)
            with self._changed:
                self._connections += 1
                self._changed.notify_all()
            # A connection that closes before its welcome is no better than none.
            attempt = 0 if welcomed else attempt + 1
            time.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])  # the back-off

    def _hello(self) -> Hello:
        settings = self._settings
        with self._changed:
            self._said = state = self._state
            fingerprint = dict(self._fingerprint)
        return Hello(
            token=settings.token_file.read_text().strip(),
            worker=settings.worker,
            index=settings.index,
            fingerprint=fingerprint,
            generation=state.generation,
            phase=state.phase,
            step=state.step,
            members=state.members,
            task="" if self._assignment is None else self._assignment.task,
            finished=self._finished,
            last_end="" if self._connections else settings.last_end,
        )

    def _suspect(self) -> None:
        """Report an exchange that is overdue, once for each time that it becomes so again."""
        now = time.monotonic()
        detection = self._assignment.detection_seconds if self._assignment else None
        floor = SUSPICION_PART * (detection or DETECTION_SECONDS) - TICK_SECONDS
        waited = self._activity.overdue(floor)
        if waited is None:
            self._suspected = 0.0
            return
        if self._heard < self._suspected < now - SILENCE_SECONDS:
            raise OSError("the coordinator has not answered a suspicion")
        # Each time that the wait has doubled: what seemed well may have gone wrong since.
        if waited >= 2 * self._suspected_wait or not self._suspected:
            self._suspected, self._suspected_wait = now, waited
            state = self._state
            self.send(Suspect(generation=state.generation, step=state.step, waited_seconds=waited))

    def _pulse(self, probe: Probe) -> Pulse:
        state, sight = self._state, self._activity.sight()
        return Pulse(
            nonce=probe.nonce,
            generation=state.generation,
            step=state.step,
            phase=state.phase,
            activity=sight.activity,
            age_seconds=sight.age,
            usual_seconds=sight.usual,
        )

    def _take(self, link: Connection, message: object) -> None:
        if isinstance(message, Probe):
            link.send(self._pulse(message))
            return
        if isinstance(message, Stop | Refusal):
            self._on_end(message)
            return
        with self._changed:
            self._keep(link, message)  # type: ignore[arg-type]
            self._changed.notify_all()
        if isinstance(message, Welcome):
            said, state = self._said, self._state
            if (said.phase, state.phase) == ("loading", "ready"):
                link.send(Ready(fingerprint=self._fingerprint))
            elif (said.generation, said.phase) != (state.generation, state.phase):
                raise OSError("the hello was overtaken by events; saying it anew")
            if self._leaving:
                link.send(Leave())
        if isinstance(message, Generation) and not message.soft:
            self._on_hard(message.generation)

    def _keep(self, link: Connection, message: FromCoordinator) -> None:
        match message:
            case Welcome(assignment=assignment):
                self._assignment = assignment
                self._link = link
            case Generation(generation=number):
                self._generation = message
                if not message.soft:
                    self._hard = max(self._hard, number)
                    self._values = {k: v for k, v in self._values.items() if k[0] >= number}
            case Go():
                self._go = message
            case KeyValue(generation=number, key=key, value=value):
                self._values[number, key] = value
            case Bye():
                self._bye = True
