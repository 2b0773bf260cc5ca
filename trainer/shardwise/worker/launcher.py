"""Keeps workers alive: forks each, and forks it again when it crashes or gives no sign of life.

The process has imported torch before, so a crashed worker is back in about a tenth of a second.
Nothing but imports may happen in it: no tensor operation, no thread. What ends a worker for good
is an exit code of its own (success, a user's error, a refusal); a signal or an unknown code is a
crash. As a pod's first process it passes signals on and reaps whatever is left to it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from shardwise.api import environment, exitcodes

log = logging.getLogger(__name__)

FINAL = frozenset(
    {
        exitcodes.OK,
        exitcodes.USAGE,
        exitcodes.USER_CODE,
        exitcodes.GROUP_LOST,
        exitcodes.REFUSED,
        exitcodes.OUTPUT,
        exitcodes.TERMINATED,
    }
)
READY, ALIVE = b"r", b"a"
OUT_OF_MEMORY = "OOMKilled"
YOUNG_DEATHS = 5
"""Crashes in a row, each of its own doing, after which it is given up: an exception that nobody
expected would come again and again."""
YOUNG_KILLS = 20
"""Kills in a row by somebody else, each before it was ready, after which it is given up as well: it
is not to blame, but may be what a node without memory takes first, again and again."""
POOL_YOUNG_DEATHS = 20
"""In a pool the coordinator counts, and ends the task that it is."""
YOUNG_SECONDS = 60.0
"""A worker that has lived for longer has outlived what its last life died of."""
BACK_OFF_SECONDS = (0.0, 0.0, 0.2, 1.0, 5.0)
SIBLING_SECONDS = 20.0
"""For the coordinator to end the other workers of this machine, once one has told it of a failure
that is the task's."""
ENDING = (signal.SIGTERM, signal.SIGINT)
_OOM_COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)


@dataclass(slots=True)
class _Slot:
    """One worker's place, over all its lives."""

    index: int | None
    pid: int = 0
    heard: float = 0.0
    pipe: int = -1
    ready: bool = False
    young_deaths: int = 0
    young_kills: int = 0
    silent: bool = False
    """Its life was ended here, for want of signs of it."""
    started: float = 0.0
    start_at: float | None = None
    """When it is to be started, while it does not run."""
    code: int | None = None
    """Its exit code, once it has ended for good."""
    last_end: str = ""
    """How its last life ended, where that was a crash."""


@dataclass(slots=True)
class Launcher:
    """Runs workers until all have ended.

    Args:
        run: a worker's whole life in its own process, given its index and the descriptor to which
            it writes signs of life; its exit code.
        watchdog_seconds: how long a worker may give no sign of life.
        on_out_of_memory: called once, when the kernel killed a worker for memory.
        pool: its workers do many tasks: what one task does to a worker does not end it for good.
    """

    run: Callable[[int | None, int], int]
    watchdog_seconds: float
    on_out_of_memory: Callable[[], None] = lambda: None
    pool: bool = False
    _slots: list[_Slot] = field(default_factory=list, init=False)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector, init=False)
    _ending: bool = field(default=False, init=False)
    _terminate_at: float | None = field(default=None, init=False)
    _commands: int = field(default=-1, init=False)
    _rest: bytes = field(default=b"", init=False)
    _pipes: set[int] = field(default_factory=set, init=False)
    """Open ones: of the lives that are, and of those whose end has not been read yet."""
    _oom_kills: int = field(default=0, init=False)

    def main(self, indices: Iterable[int | None], commands: int | None) -> int:
        """Run the workers of these indices to their ends; the worst exit code.

        Args:
            commands: a descriptor with lines `start INDEX`, which add workers; its end ends all.
        """
        wake, notify = os.pipe()
        for descriptor in (wake, notify):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(notify)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to wake the loop
        for number in ENDING:
            signal.signal(number, lambda number, _: self._pass_on(number))
        self._selector.register(wake, selectors.EVENT_READ, lambda: _drain(wake))
        if commands is not None:
            self._commands = commands
            self._selector.register(commands, selectors.EVENT_READ, self._command)
        self._oom_kills = _oom_kills()
        now = time.monotonic()
        self._slots = [_Slot(index, start_at=now) for index in indices]
        while any(slot.code is None for slot in self._slots):
            self._advance()
        return max((slot.code or 0 for slot in self._slots), default=exitcodes.OK)

    def _advance(self) -> None:
        """One turn: start what is due, wait for news, reap, look after the silent."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.start_at is not None and slot.start_at <= now:
                self._start(slot)
        for key, _ in self._selector.select(self._timeout(now)):
            key.data()
        self._reap()
        now = time.monotonic()
        for slot in self._slots:
            if slot.pid and now - slot.heard > self.watchdog_seconds:
                log.warning("worker %s gave no sign of life; it is begun anew", slot.index)
                slot.heard, slot.silent = now, True
                os.kill(slot.pid, signal.SIGKILL)
        if self._terminate_at is not None and now >= self._terminate_at:
            self._terminate_at = None
            self._pass_on(signal.SIGTERM)

    def _timeout(self, now: float) -> float:
        moments = [slot.start_at for slot in self._slots if slot.start_at is not None]
        moments += [slot.heard + self.watchdog_seconds for slot in self._slots if slot.pid]
        moments += [] if self._terminate_at is None else [self._terminate_at]
        return max(0.0, min(moments, default=now + 3600.0) - now)

    def _start(self, slot: _Slot) -> None:
        slot.start_at = None
        # A signal that came now would find no process to go to, or one with this one's handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            if self._ending:
                slot.code = exitcodes.TERMINATED
            else:
                self._fork(slot)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def _fork(self, slot: _Slot) -> None:
        read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._become_worker(read)
                os.environ[environment.LAST_END] = slot.last_end
                code = self.run(slot.index, write)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                # Not sys.exit: the parent's exit handlers are not this process's to run.
                os._exit(code)
        os.close(write)
        os.set_blocking(read, False)
        slot.started = slot.heard = time.monotonic()
        slot.pid, slot.pipe, slot.ready, slot.silent = pid, read, False, False
        self._pipes.add(read)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._hear(slot, read))

    def _become_worker(self, read: int) -> None:
        signal.set_wakeup_fd(-1)
        for number in (*ENDING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        os.close(read)
        for pipe in self._pipes:
            os.close(pipe)
        self._selector.close()

    def _hear(self, slot: _Slot, pipe: int) -> None:
        """News from one life of a worker; the end of its pipe may come after the next has begun."""
        data = os.read(pipe, 4096)
        if not data:
            self._selector.unregister(pipe)
            os.close(pipe)
            self._pipes.discard(pipe)
        elif pipe == slot.pipe:
            slot.heard = time.monotonic()
            slot.ready = slot.ready or READY in data

    def _command(self) -> None:
        data = os.read(self._commands, 4096)
        if not data:
            self._selector.unregister(self._commands)
            self._pass_on(signal.SIGTERM)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, _, index = line.decode().partition(" ")
            if word == "start" and index.isdigit():
                self._slots.append(_Slot(int(index), start_at=time.monotonic()))

    def _pass_on(self, number: int) -> None:
        self._ending = True
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self._slots:
                if slot.pid == pid:
                    slot.pid = 0
                    self._ended(slot, os.waitstatus_to_exitcode(status))

    def _ended(self, slot: _Slot, code: int) -> None:
        slot.last_end = "" if code == exitcodes.AGAIN else _last_end(code)
        code = code if code >= 0 else 128 - code
        self._count(slot, code)
        killed_for_memory = code == 128 + signal.SIGKILL and _oom_kills() > self._oom_kills
        if killed_for_memory and self.pool and not self._ending:
            self._oom_kills = _oom_kills()
            slot.last_end, slot.start_at = OUT_OF_MEMORY, time.monotonic()
        elif killed_for_memory:
            # Again it would only need as much again; the operator can say what to do.
            self.on_out_of_memory()
            self._give_up(slot, code)
        elif code == exitcodes.AGAIN and not self._ending:
            slot.young_deaths = slot.young_kills = 0
            slot.start_at = time.monotonic()
        elif code in FINAL or self._ending:
            self._give_up(slot, code)
        elif slot.young_deaths >= (POOL_YOUNG_DEATHS if self.pool else YOUNG_DEATHS):
            log.error("worker %s crashed %d times in a row", slot.index, slot.young_deaths)
            self._give_up(slot, code)
        elif slot.young_kills >= YOUNG_KILLS:
            log.error("worker %s was killed %d times in a row", slot.index, slot.young_kills)
            self._give_up(slot, code)
        else:
            log.warning("worker %s ended with exit code %d; it is begun anew", slot.index, code)
            young = slot.young_deaths + min(slot.young_kills, 3)
            delay = BACK_OFF_SECONDS[min(young, len(BACK_OFF_SECONDS) - 1)]
            slot.start_at = time.monotonic() + delay

    def _count(self, slot: _Slot, code: int) -> None:
        """Note an end that came too soon, by whose doing it was."""
        # A thread that stood still may have been held up by the machine.
        by_others = code in (128 + signal.SIGKILL, exitcodes.HUNG)
        old = time.monotonic() - slot.started > YOUNG_SECONDS
        if slot.ready and (by_others or old):
            slot.young_deaths = slot.young_kills = 0
        elif by_others and not slot.silent:
            slot.young_kills += 1
        else:
            slot.young_deaths += 1

    def _give_up(self, slot: _Slot, code: int) -> None:
        slot.code = code
        if code in (exitcodes.OK, exitcodes.TERMINATED) or self._ending:
            return
        # Of a user's error the coordinator knows; of any other end it would wait for this worker.
        told = code in (exitcodes.USER_CODE, exitcodes.GROUP_LOST, exitcodes.OUTPUT)
        self._terminate_at = time.monotonic() + (SIBLING_SECONDS if told else 0.0)


def _last_end(code: int) -> str:
    return f"Exit {code}" if code >= 0 else f"Signal {-code}"


def _drain(wake: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(wake, 4096)


def _oom_kills() -> int:
    """How many processes of this container the kernel has killed for memory."""
    for path in _OOM_COUNTERS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                return int(count)
    return 0
