"""When a worker takes part in a checkpoint, and what it resumes from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from shardwise.checkpoint import Checkpointer, newest
from shardwise.checkpoint import Report as CheckpointResult
from shardwise.coordinator.protocol import CheckpointReport
from shardwise.engine.training import Training

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one task, as one worker sees them.

    Args:
        location: a directory or an fsspec URL; None where the job keeps no checkpoints.
        policy: spec.checkpoint in its JSON form.
        identity: the SHA-256 of spec.trainer: what a checkpoint must have been made for.
        send: tells the coordinator of each one that was committed, or was not.
    """

    def __init__(
        self,
        location: str | None,
        policy: Mapping[str, Any],
        identity: str,
        send: Callable[[CheckpointReport], object],
    ) -> None:
        self._location, self._identity, self._send = location, identity, send
        self._every_steps: int | None = policy.get("everySteps")
        self._every_seconds: float | None = policy.get("everySeconds")
        self._saved_step = 0
        self._saved_at = time.monotonic()
        self._keeper: Checkpointer | None = None
        if location is not None:
            self._keeper = Checkpointer(
                location, identity=identity, keep=policy.get("keep", 2), on_report=self._told
            )

    def wanted(self) -> bool:
        """Whether it is time for one by the clock. Members' clocks differ: one of them asks for
        it in the summed vector, and all save at the same step."""
        if self._keeper is None or self._every_seconds is None:
            return False
        return time.monotonic() - self._saved_at >= self._every_seconds

    def due(self, step: int, *, asked: bool) -> bool:
        """Whether all members save the state of this step."""
        if self._keeper is None or step == self._saved_step:
            return False
        return asked or (self._every_steps is not None and step % self._every_steps == 0)

    def save(self, training: Training, generation: int) -> None:
        """Take this worker's part aside; writing it goes on in the background."""
        if self._keeper is None:
            return
        self._saved_step, self._saved_at = training.steps_done, time.monotonic()
        if self._keeper.busy:
            return  # the one before is still being written: not even a copy is made
        group = training.group
        self._keeper.save(
            training.snapshot(), rank=group.rank, size=group.size, generation=generation
        )

    def finish(self, timeout: float) -> bool:
        """Wait until what was saved is committed; whether it was in time."""
        return self._keeper is None or self._keeper.wait(timeout)

    def resume(self, training: Training) -> bool:
        """Restore the newest good checkpoint, where there is one; whether there was.

        Damaged ones that were skipped for it are told to the coordinator.

        Raises:
            CheckpointError: the location cannot be read.
        """
        if self._location is None:
            return False
        damages: list[str] = []
        snapshot = newest(self._location, self._identity, on_damage=damages.append)
        if damages:
            more = f" (and {len(damages) - 1} more)" if len(damages) > 1 else ""
            then = f"resumed from step {snapshot.step}" if snapshot else "begun anew"
            error = f"{damages[0]}{more}; it was skipped, and the training {then}"
            self._send(CheckpointReport(step=0, bytes=0, seconds=0.0, error=error))
        if snapshot is None:
            return False
        training.restore(snapshot)
        self._saved_step = training.steps_done
        log.info("resumed from the checkpoint of step %d", training.steps_done)
        return True

    def close(self) -> None:
        if self._keeper is not None:
            self._keeper.close()

    def _told(self, result: CheckpointResult) -> None:
        if result.error:
            log.warning("the checkpoint of step %d failed: %s", result.step, result.error)
        self._send(
            CheckpointReport(
                step=result.step, bytes=result.bytes, seconds=result.seconds, error=result.error
            )
        )
