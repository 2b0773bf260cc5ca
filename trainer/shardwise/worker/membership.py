"""A worker's membership: from the announcement of a generation to a group that has formed.

The training thread calls `form` whenever its group is over, and gets a new one. The control
thread calls `abort` when a hard generation comes, so that no transfer waits for a dead peer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shardwise.coordinator.protocol import Ack, Fault, Generation, Go, Phase
from shardwise.engine.group import Alone, Group, GroupError
from shardwise.worker.control import Control, State, Superseded
from shardwise.worker.handshake import Self
from shardwise.worker.peers import PeerGroup
from shardwise.worker.work import Work

log = logging.getLogger(__name__)

FOREVER_SECONDS = 30 * 86400.0
"""For peers and the coordinator; the job's own deadlines are the operator's, and shorter."""
CONNECT_SECONDS = (2.0, 4.0, 8.0, 20.0)
"""For a group to connect, by attempt: a peer that dies meanwhile cannot be noticed any sooner."""


class Departure(Exception):  # noqa: N818 - an event
    """This worker is out: it was asked to leave, and the others go on without it."""

    def __init__(self, *, last: bool) -> None:
        super().__init__("this worker has left")
        self.last = last
        """Nobody goes on: all were asked to leave."""


class Over(Exception):  # noqa: N818 - an event
    """The task has ended; nothing is left to do."""


class Membership:
    """This worker's place in the group of the task.

    Args:
        address: where peers reach this worker.
        before_wait: called before each wait for a peer.
    """

    def __init__(
        self,
        control: Control,
        name: str,
        address: str,
        before_wait: Callable[[], None],
    ) -> None:
        self._control, self._name, self._address = control, name, address
        self._before_wait = before_wait
        self._lock = threading.Lock()
        self._aborted = 0
        self._attempts = 0
        self.group: Group = Alone()
        self.generation = 0
        self._members: tuple[str, ...] = ()

    @property
    def formed(self) -> bool:
        """Whether it is in a group, or in a generation of one that is to form."""
        return bool(self._members)

    def set_phase(self, phase: Phase, step: int) -> None:
        """What a new coordinator is told of this worker."""
        self._control.set_state(State(self.generation, phase, step, self._members))

    def abort(self, generation: int) -> None:
        """A hard generation is announced: end the transfers of every one before it."""
        with self._lock:
            self._aborted = max(self._aborted, generation)
            if self.generation < generation and isinstance(self.group, PeerGroup):
                self.group.abort()

    def broken(self, error: GroupError, step: int) -> None:
        """Tell the coordinator, unless it knows already, that an exchange of this group broke."""
        # Before the fault is sent: should the connection be down, the next hello says it.
        self.set_phase("forming", step)
        peer = None
        if error.peer is not None and error.peer < len(self._members):
            peer = self._members[error.peer]
        if self._aborted <= self.generation:
            message = str(error)[:500]
            self._control.send(Fault(generation=self.generation, message=message, peer=peer))

    def announced(self, work: Work) -> Generation:
        """The next generation that this worker is a member of; the old group is over.

        Raises:
            Departure: this worker was asked to leave, and is in no group any more.
            Over: the task has ended.
        """
        while True:
            announced = self._control.wait_generation(self.generation, FOREVER_SECONDS)
            if announced is None:
                if self._control.leaving and not self._control.over:
                    raise Departure(last=False)
                raise Over
            self._take_leave(announced.generation)
            names = [member.worker for member in announced.members]
            if self._name in names:
                return announced
            if self._control.leaving or not names:
                raise Departure(last=not names)
            log.info("generation %d forms without this worker", announced.generation)
            self._members = ()
            self.set_phase("ready", work.position)

    def _take_leave(self, generation: int) -> None:
        with self._lock:
            old, self.group, self.generation = self.group, Alone(), generation
        if isinstance(old, PeerGroup):
            old.close()

    def form(self, announced: Generation, work: Work) -> bool:
        """Take part in a generation; False where it did not come to be.

        Raises:
            StateLost: a part of the optimizer's state is gone with its holders.
            Over: the task has ended.
        """
        generation, position = announced.generation, work.position
        self._members = tuple(member.worker for member in announced.members)
        self.set_phase("forming", position)
        ack = Ack(generation=generation, step=position, digest=work.digest())
        self._control.send(ack)
        try:
            go = self._control.wait_go(generation, FOREVER_SECONDS)
            if go is None:
                raise Over
            self._members = tuple(member.worker for member in go.members)
            self._connect(go, self._members.index(self._name))
            work.join(self.group, max(go.steps))
        except (Superseded, GroupError) as error:
            log.info("generation %d did not form: %s", generation, error)
            if isinstance(error, GroupError):
                self.broken(error, work.position)
            return False
        self.set_phase("training", work.position)
        place = f"rank {self.group.rank} of {self.group.size}"
        log.info("generation %d formed at step %d: %s", generation, work.position, place)
        return True

    def _connect(self, go: Go, rank: int) -> None:
        size = len(go.members)
        if size == 1:
            return
        if not go.secret:
            raise GroupError("the coordinator gave no secret: use images of one release")
        seconds = CONNECT_SECONDS[min(self._attempts, len(CONNECT_SECONDS) - 1)]
        self._attempts += 1
        me = Self(
            secret=go.secret,
            generation=self.generation,
            rank=rank,
            size=size,
            protection=go.protection,
        )
        group = PeerGroup(me, address=self._address, before_wait=self._before_wait)
        with self._lock:
            self.group = group  # from now on `abort` ends what it waits for
            aborted = self._aborted > self.generation
        if aborted:
            raise Superseded(f"generation {self._aborted} supersedes {self.generation}")
        group.connect(self._control, seconds)
        self._attempts = 0
