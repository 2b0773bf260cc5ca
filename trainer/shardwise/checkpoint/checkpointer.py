"""Checkpoints in the background: the training loop hands a snapshot over and goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from shardwise.checkpoint.files import Files, open_files
from shardwise.checkpoint.layout import Name
from shardwise.checkpoint.remedy import explain
from shardwise.checkpoint.saver import Report, Save, Saver, StoppedError
from shardwise.engine.snapshot import Snapshot

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.01
_LAST_PAUSE = 1.0
"""Seconds between two looks for the parts of the other ranks: doubling from first to last."""


class Checkpointer:
    """Writes one worker's parts of checkpoints, in a thread of its own.

    One snapshot is in hand at a time: where the one before is still being written, the new one is
    left out, and counted in the next report. Nothing that goes wrong with a checkpoint is raised
    in the training loop; it is reported.

    Args:
        location: a path or an fsspec URL that all workers reach.
        identity: of what is trained, the same for all workers: the SHA-256 of spec.trainer.
        keep: committed checkpoints to keep, at least 1.
        on_report: told of each commit (on rank 0) and of each failure (on the rank that has it),
            in the background thread.
        part_seconds: how long rank 0 waits for the parts of the others.
        files: instead of what `location` names; for tests.

    Raises:
        ValueError: keep is less than 1.
    """

    def __init__(
        self,
        location: str,
        *,
        identity: str,
        keep: int,
        on_report: Callable[[Report], None],
        part_seconds: float = 600.0,
        files: Files | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"spec.checkpoint.keep is {keep}; give 1 or more")
        self._location = location
        self._identity = identity
        self._keep = keep
        self._on_report = on_report
        self._part_seconds = part_seconds
        self._files = files
        self._changed = threading.Condition()
        self._next: Save | None = None
        self._writing = False
        self._waiting = False
        self._skipped = 0
        self._closing = False
        self._saver: Saver | None = None  # of the thread alone
        self._thread: threading.Thread | None = None

    def save(self, snapshot: Snapshot, *, rank: int, size: int, generation: int) -> bool:
        """Have this rank's part of a checkpoint written. Returns at once.

        All ranks of a generation must call this at the same step.

        Args:
            snapshot: this rank's part; not to be changed any more.
            rank: of this worker in its group, 0 ≤ rank < size; rank 0 commits.

        Returns:
            Whether it was taken; False if the one before is still being written.

        Raises:
            RuntimeError: it was closed.
        """
        name = Name.of(
            step=snapshot.step, generation=generation, workers=size, identity=self._identity
        )
        with self._changed:
            if self._closing:
                raise RuntimeError("the checkpointer is closed")
            if self._next is not None or self._writing:
                self._skipped += 1
                return False
            self._next = Save(snapshot=snapshot, rank=rank, name=name, began=time.monotonic())
            if self._thread is None:
                # A daemon: a volume that hangs must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    @property
    def busy(self) -> bool:
        """Whether `save` would leave a snapshot out: then there is no need to take one."""
        with self._changed:
            return self._next is not None or self._writing

    def wait(self, timeout: float) -> bool:
        """Wait until nothing is under way: written, and on rank 0 committed, or failed.

        Args:
            timeout: seconds.

        Returns:
            False if something still is.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._next or self._writing or self._waiting), timeout
            )

    def close(self, timeout: float = 5.0) -> None:
        """Give up what is under way; `wait` before if it matters. Harmless when called twice.

        Args:
            timeout: seconds to wait for the thread; it is left behind if the volume hangs.
        """
        with self._changed:
            self._closing = True
            self._next = None
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                _log.warning(
                    "%s does not answer: a checkpoint is left half-written", self._location
                )

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                save = self._take(pause)
                try:
                    changed = self._work(save)
                finally:
                    self._settle()
            except StoppedError:
                self._saver = None  # with what it waited for
                self._settle()
                return
            pause = _FIRST_PAUSE if changed else min(2 * pause, _LAST_PAUSE)

    def _take(self, pause: float) -> Save | None:
        """The next snapshot; None when it is time to look for the parts of other ranks."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or self._next is not None, pause if self._waiting else None
            )
            if self._closing:
                raise StoppedError
            save, self._next = self._next, None
            self._writing = save is not None
            return save

    def _work(self, save: Save | None) -> bool:
        """Write what was taken, commit what is complete; whether anything changed."""
        try:
            saver = self._opened()
            if save is not None:
                saver.write(save)
                self._settle()  # from here on the next snapshot can be taken
            return saver.poll() or save is not None
        except OSError as error:
            self._failed(save, explain(error, f"cannot open {self._location}"))
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001
            # Not expected; but a bug here must neither end the training nor stay unseen.
            _log.exception("a checkpoint could not be written")
            self._saver = None
            self._failed(save, f"{type(error).__name__}: {error}")
        return True

    def _opened(self) -> Saver:
        if self._saver is None:
            self._saver = Saver(
                self._files or open_files(self._location),
                identity=self._identity,
                keep=self._keep,
                on_report=self._tell,
                part_seconds=self._part_seconds,
                stopping=lambda: self._closing,
            )
        return self._saver

    def _settle(self) -> None:
        with self._changed:
            self._writing = False
            self._waiting = self._saver is not None and self._saver.waiting
            self._changed.notify_all()

    def _failed(self, save: Save | None, reason: str) -> None:
        if save is not None:
            step, seconds = save.name.step, time.monotonic() - save.began
            text = f"checkpoint of step {step}: {reason}; training goes on without it"
            self._tell(Report(step, 0, seconds, text))

    def _tell(self, report: Report) -> None:
        with self._changed:
            skipped, self._skipped = self._skipped, 0
        try:
            self._on_report(replace(report, skipped=report.skipped + skipped))
        except Exception:  # noqa: BLE001
            _log.exception("the report of a checkpoint could not be passed on")
