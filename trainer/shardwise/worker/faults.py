"""Faults on demand: `kill:1@50,hang:2@120`, so that recovery can be seen and tested.

    KIND:INDEX@STEP[/TRANSFER]

A fault strikes the worker of that index when it begins the step, or at the TRANSFER-th wait for a
peer within it; a worker that was away then is struck as soon as it is back. It strikes once in a
run: a marker file says so to the worker's later lives.

    kill        SIGKILL
    hang        SIGSTOP: every thread stands still, the sockets stay open
    stall       the training thread alone stands still
    partition   for two seconds nothing that is sent to this worker arrives
    leave       SIGTERM: it leaves at the next step boundary
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from shardwise.worker.sockets import open_sockets

WorkerFault = Literal["kill", "hang", "stall", "partition", "leave"]
COORDINATOR_FAULT = "crash-coordinator"
PARTITION_SECONDS = 2.0
STALL_SECONDS = 86_400.0

_WORKER = re.compile(
    rf"(?P<kind>{'|'.join(get_args(WorkerFault))}):(?P<index>\d{{1,4}})@(?P<step>\d{{1,9}})"
    r"(?:/(?P<transfer>\d{1,6}))?"
)
_COORDINATOR = re.compile(rf"{COORDINATOR_FAULT}@(?P<step>\d{{1,9}})")

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27


class FaultError(ValueError):
    """A fault that cannot be read."""


@dataclass(frozen=True)
class Fault:
    """One fault; `index` is None for the coordinator's."""

    kind: str
    step: int
    index: int | None = None
    transfer: int | None = None

    def __str__(self) -> str:
        if self.index is None:
            return f"{self.kind}@{self.step}"
        place = "" if self.transfer is None else f"/{self.transfer}"
        return f"{self.kind}:{self.index}@{self.step}{place}"


def parse_fault(text: str) -> Fault:
    """One fault from its text.

    Raises:
        FaultError: it is none of the known ones.
    """
    if match := _WORKER.fullmatch(text):
        transfer = match["transfer"]
        return Fault(
            match["kind"],
            int(match["step"]),
            int(match["index"]),
            None if transfer is None else int(transfer),
        )
    if match := _COORDINATOR.fullmatch(text):
        return Fault(COORDINATOR_FAULT, int(match["step"]))
    kinds = ", ".join(get_args(WorkerFault))
    raise FaultError(
        f"{text!r} is no fault; write KIND:INDEX@STEP with a KIND of {kinds}, or "
        f"{COORDINATOR_FAULT}@STEP; for example kill:1@50"
    )


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Faults from a list with commas; an empty text holds none."""
    return tuple(parse_fault(part.strip()) for part in text.split(",") if part.strip())


class Faults:
    """The faults of one worker.

    Args:
        faults: those of all workers; others' are passed over.
        markers: a folder that outlives the worker; None strikes in each life anew.
    """

    def __init__(self, faults: Sequence[Fault], index: int, markers: Path | None) -> None:
        self._mine = [fault for fault in faults if fault.index == index]
        self._markers = markers
        self._step = -1
        self._transfer = 0

    def begin_step(self, step: int) -> None:
        """The step (from 0) begins, perhaps not for the first time."""
        self._step, self._transfer = step, 0
        if self._mine:
            self._strike(None)

    def begin_transfer(self) -> None:
        """A wait for a peer begins."""
        self._transfer += 1
        if self._mine:
            self._strike(self._transfer)

    def _strike(self, transfer: int | None) -> None:
        for fault in list(self._mine):
            if fault.step <= self._step and fault.transfer == transfer:
                self._mine.remove(fault)
                if self._first_time(fault):
                    _STRIKE[fault.kind]()

    def _first_time(self, fault: Fault) -> bool:
        if self._markers is None:
            return True
        try:
            (self._markers / str(fault).replace("/", "-")).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def _stall() -> None:
    threading.Event().wait(STALL_SECONDS)


class _Filter(ctypes.Structure):
    """struct sock_filter: one instruction of the classic packet filter."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter)))


def _partition() -> None:
    """Drop whatever arrives at this process's sockets, for a while."""
    accept_nothing = _Filter(code=0x06, jt=0, jf=0, k=0)  # BPF_RET | BPF_K: keep 0 bytes
    program = _Program(length=1, filter=ctypes.pointer(accept_nothing))
    cut = open_sockets()
    for descriptor, _ in cut:
        _set_option(descriptor, _SO_ATTACH_FILTER, bytes(program))

    def heal() -> None:
        for descriptor, _ in cut & open_sockets():
            _set_option(descriptor, _SO_DETACH_FILTER, bytes(4))

    timer = threading.Timer(PARTITION_SECONDS, heal)
    timer.daemon = True
    timer.start()


def _set_option(descriptor: int, option: int, value: bytes) -> None:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            copy.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError:
        pass  # closed meanwhile, or not of a kind that filters


_STRIKE: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "stall": _stall,
    "partition": _partition,
    "leave": lambda: os.kill(os.getpid(), signal.SIGTERM),
}
