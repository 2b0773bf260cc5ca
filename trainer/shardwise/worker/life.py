"""A worker process from its start to its end: one task, or in a pool task after task.

What ends it is always an Outcome, which is told to the coordinator, the pod's status and the shell.
Each task gets a connection, an assignment and a state of its own, so one leaves nothing to the
next but what Python has imported; after a task that failed a new process comes instead.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from shardwise.api import conditions, exitcodes
from shardwise.checkpoint import CheckpointError
from shardwise.coordinator.protocol import HUNG, Ended, Failed, Refusal, Stop
from shardwise.engine.usercode import NotFiniteError, UserCodeError
from shardwise.worker import output
from shardwise.worker.control import Control
from shardwise.worker.faults import Faults
from shardwise.worker.metrics import WorkerMetrics
from shardwise.worker.outcome import Failure, Left, Outcome, Success, write_termination_message
from shardwise.worker.process import Process
from shardwise.worker.run import Worker
from shardwise.worker.settings import Settings
from shardwise.worker.stretch import UnfitTask

log = logging.getLogger("shardwise.worker")

ALONE_SECONDS = 10.0
"""That a worker which was asked to leave waits for a coordinator that is away."""
RETOLD = 16
"""Results that are told again to a coordinator that is new; what it lacks is what the last one
had not written down yet, a few seconds' worth."""

_REASONS: Mapping[type[Exception], str] = {
    UnfitTask: conditions.INVALID_TASKS,
    NotFiniteError: conditions.NOT_FINITE,
    UserCodeError: conditions.USER_CODE_FAILED,
    CheckpointError: conditions.CHECKPOINT_FAILED,
    output.OutputError: conditions.OUTPUT_FAILED,
}
"""What ends a task, and the word for it; the first that fits."""


def main(settings: Settings, on_ready: Callable[[], object]) -> int:
    """Run one worker process to its end; its exit code.

    SIGTERM must be blocked, in all threads that there are.

    Args:
        on_ready: called once a task is loaded.
    """
    process = Process(
        settings=settings,
        metrics=WorkerMetrics(settings.job, settings.index),
        faults=Faults(settings.faults, settings.index, settings.fault_markers),
        on_ready=on_ready,
    )
    if settings.metrics_port is not None:
        process.metrics.serve(settings.metrics_port, settings.address)
    life = Life(process)
    threading.Thread(target=life.leave_when_asked, name="leave", daemon=True).start()
    return life.run()


class Life:
    """The tasks of one process, one after the other."""

    def __init__(self, process: Process) -> None:
        self._process, self._settings = process, process.settings
        self._finished: deque[Ended] = deque(maxlen=RETOLD)
        self._leaving = False
        self._result: Success | None = None
        self._worker = self._next()

    def run(self) -> int:
        """The exit code."""
        while True:
            outcome = self._work()
            again = self._worker.in_pool and not self._leaving
            self._worker.control.close()
            if not again:
                return outcome.exit_code
            if isinstance(outcome, Failure):
                return exitcodes.AGAIN
            del outcome
            self._worker = self._next()
            gc.collect()  # models and their data go before the next ones come
            if self._leaving:  # asked between two tasks: the new connection does not know
                self._worker.control.leave()

    def _next(self) -> Worker:
        return Worker(self._process, self._stopped, tuple(self._finished))

    def _work(self) -> Outcome:
        """Do one task; how it ended, after everybody was told."""
        worker = self._worker
        outcome: Outcome
        try:
            outcome = worker.run()
        except tuple(_REASONS) as error:
            reason = next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
            message = f"{error}{worker.left_behind}"
            outcome = Failure.of(reason, message, getattr(error, "detail", ""))
        if isinstance(outcome, Success) and worker.ended is not None:
            self._finished.append(worker.ended)
        if isinstance(outcome, Success) and (worker.collects or not worker.in_pool):
            self._result = outcome if outcome.result else self._result
            outcome = self._result or outcome  # what was collected is the whole job's result
        self._tell(outcome)
        if isinstance(outcome, Failure):
            failed = Failed(
                reason=outcome.reason, message=outcome.message_line, detail=outcome.detail[-8000:]
            )
            worker.say_goodbye(failed)
        return outcome

    def _tell(self, outcome: Outcome) -> None:
        worker = self._worker
        if not worker.in_pool or worker.collects or self._leaving:
            write_termination_message(outcome, self._settings.termination_log)
        if isinstance(outcome, Failure):
            log.error("%s: %s", outcome.reason, outcome.message_line)
            if outcome.detail:
                print(outcome.detail, file=sys.stderr, flush=True)

    def _stopped(self, message: Stop | Refusal) -> None:
        # In the control thread, while training may hang in a transfer: nothing else can end it.
        if isinstance(message, Stop) and message.again:
            log.info("%s: %s; this process is begun anew", message.reason, message.message)
            os._exit(exitcodes.HUNG if message.reason == HUNG else exitcodes.AGAIN)
        if isinstance(message, Refusal):
            failure = Failure.of(conditions.REFUSED_WORKER, message.message)
        else:  # whatever the reason, it is not this worker's: its exit code says so
            failure = Failure(reason=message.reason, message_line=message.message)
        write_termination_message(failure, self._settings.termination_log)
        log.error("%s: %s", failure.reason, failure.message_line)
        os._exit(failure.exit_code)

    def leave_when_asked(self) -> None:
        """Wait for SIGTERM, in a thread of its own: the training thread may be deep in a
        transfer."""
        signal.sigwait({signal.SIGTERM})
        self._leaving = True
        self._worker.control.leave()
        _wait_to_leave(lambda: self._worker.control, self._settings.grace_seconds)
        if self._worker.succeeded:
            os._exit(exitcodes.OK)
        left = Left(message_line="it was asked to leave, and no step boundary came in time")
        write_termination_message(left, self._settings.termination_log)
        os._exit(exitcodes.TERMINATED)


def _wait_to_leave(control: Callable[[], Control], grace_seconds: float) -> None:
    """Until the grace period is over; sooner where no coordinator is there to let it out."""
    pause, now = threading.Event(), time.monotonic()
    deadline, heard = now + grace_seconds, now
    while now < min(deadline, heard + ALONE_SECONDS):
        pause.wait(0.2)
        now = time.monotonic()
        heard = now if control().connected else heard
