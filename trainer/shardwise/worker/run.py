"""One worker's life: connect, load the task, take part in groups, train, write, end.

Reads top to bottom. What ends it is always an Outcome; `life` tells it to everybody.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from shardwise.coordinator.protocol import Ended, Failed, Finished, Refusal, StepReport, Stop
from shardwise.coordinator.report import Assignment, Stretch
from shardwise.engine.activity import Activity
from shardwise.engine.group import Alone, GroupError, StateLost
from shardwise.worker import output
from shardwise.worker.activity import ActivityLog
from shardwise.worker.checkpoints import Checkpoints
from shardwise.worker.collecting import collect
from shardwise.worker.control import Control
from shardwise.worker.entrypoint import load_task
from shardwise.worker.former import FOLDER
from shardwise.worker.ledger import Ledger
from shardwise.worker.membership import FOREVER_SECONDS, Departure, Membership, Over
from shardwise.worker.outcome import Left, Outcome, Success, write_termination_message
from shardwise.worker.process import Process
from shardwise.worker.result import fingerprint, keep, write_result
from shardwise.worker.stretch import (
    check_objectives,
    folder,
    forget_former,
    forget_state,
    found,
    told,
)
from shardwise.worker.work import Work

log = logging.getLogger("shardwise.worker")

GOODBYE_SECONDS = 60.0
"""For a coordinator that is away to take the outcome in; the pod's status has it as well."""
KEEP_SECONDS = 60.0
"""For the state of a task that pauses to be written."""
LAST_CHECKPOINT_PART = 0.6
"""Of the grace period, for the checkpoint of a task that nobody goes on with."""


class Worker:
    """One worker on one task.

    Args:
        on_end: called from another thread when the coordinator ends or refuses this worker.
        finished: what this process has told of other tasks of its pool.
    """

    def __init__(
        self,
        process: Process,
        on_end: Callable[[Stop | Refusal], None],
        finished: Sequence[Ended] = (),
    ) -> None:
        self._process = process
        settings = self.settings = process.settings
        self.metrics, self.faults, self._on_ready = (
            process.metrics,
            process.faults,
            process.on_ready,
        )
        self.activity = ActivityLog()
        self.ledger = Ledger()
        self.assignment: Assignment | None = None
        self.ended: Ended | None = None
        """What was told of a task of a pool that has ended."""
        self.control = Control(
            settings,
            fingerprint(),
            self.activity,
            on_end,
            lambda g: self.membership.abort(g),
            finished,
        )
        self.membership = Membership(
            self.control,
            settings.worker,
            settings.address,
            self.faults.begin_transfer,
        )
        self.succeeded = False
        """The result is written; what is left is to tell of it."""
        self._reported_at, self._reported_step = 0.0, -1
        self._reported_stage = ""
        self._together = False
        self.left_behind = ""
        """Where a failure leaves what was done before it, as the end of a sentence."""
        self._kept = 0

    @property
    def stretch(self) -> Stretch | None:
        """Which task of a pool this is."""
        return None if self.assignment is None else self.assignment.stretch

    @property
    def in_pool(self) -> bool:
        """Whether there may be another task when this one is over."""
        return self.stretch is not None

    @property
    def collects(self) -> bool:
        """Whether this is the last work of a pool: to put the tasks' files together."""
        return self.stretch is not None and self.stretch.collect is not None

    def run(self) -> Outcome:
        """Do the task to its end, or to that of this worker's part in it."""
        self.metrics.phase("loading")
        self.assignment = self.control.wait_assignment(FOREVER_SECONDS)
        if self.assignment is None:
            left = Left(message_line="it was asked to leave before it had a task")
            return left if self.control.leaving else Success()
        known = self._known()
        if known is not None:
            self.say_goodbye(Finished(result=known))
            return Success(result=known)
        self.checkpoints = self._checkpoints(self.assignment)
        self.work = self._load()
        if self.stretch is not None:
            figures = self.work.training.figures() if self.stretch.objectives else ()
            compresses = self.assignment.compression is not None
            check_objectives(self.stretch, figures, compresses)
        self.control.ready(self._task_fingerprint())
        self._on_ready()
        self.started = time.monotonic()
        try:
            self._join()
            while True:
                state = self._train()
                outcome = self._finish(state)
                if outcome is not None:
                    return outcome
                self._join()
        except Departure as departure:
            return self._depart(departure)
        except Over:
            return Success()
        finally:
            self.checkpoints.close()

    # Loading.

    def _known(self) -> dict[str, Any] | None:
        """The result where no training is needed for it: the pool's, or one that is there."""
        stretch, base = self.stretch, self.settings.output
        if stretch is None:
            return None
        if stretch.collect is not None:
            self.activity.beat("finishing")
            assert self.assignment is not None
            result = collect(base, self.assignment.name, stretch.pool, stretch.collect)
            write_termination_message(Success(result=result), self.settings.termination_log)
            return result
        forget_former(base, stretch)
        return found(base, stretch)

    def _checkpoints(self, assignment: Assignment) -> Checkpoints:
        trainer = json.dumps(assignment.trainer, sort_keys=True, separators=(",", ":"))
        location = self.settings.checkpoint
        if self.stretch is not None and self.stretch.state:
            location = str(self.settings.output / self.stretch.state)
        elif self.stretch is not None and location is not None:
            location = f"{location.rstrip('/')}/{FOLDER}/{self.stretch.name}"
        return Checkpoints(
            location,
            assignment.checkpoint or {},
            hashlib.sha256(trainer.encode()).hexdigest(),
            self.control.send,
        )

    def _load(self) -> Work:
        assert self.assignment is not None
        trainer, stretch = self.assignment.trainer, self.stretch
        torch.set_num_threads(trainer.get("threads", 1))
        until = None if stretch is None else stretch.until
        compression, shared = self.assignment.compression, None
        if stretch is not None and compression is not None:
            shared = self._process.shared(trainer, self.settings.output, stretch)
        return Work(trainer, compression, load_task, self._beat, until, shared)

    def _task_fingerprint(self) -> dict[str, str | int | float]:
        training = self.work.training
        return {
            "threads": torch.get_num_threads(),
            "parameters": training.model.parameter_length,
            "gradient": training.gradient_fingerprint(),
        }

    def _beat(self, activity: Activity) -> None:
        """Called by the engine between shards and around exchanges."""
        self.activity.beat(activity)
        self.metrics.beat(activity)
        self.control.check(self.membership.generation)

    # Membership.

    def _join(self, *, together: bool = False) -> None:
        """Take part in generations until one forms.

        Args:
            together: the group ends at a boundary that all its members have come to.
        """
        membership, formed_before = self.membership, self.membership.formed
        told_before = formed_before and membership.group.rank == 0
        formed = False
        self.metrics.phase("forming" if formed_before else "ready")
        while not formed:
            self.activity.forget_wait()
            self._together, together = together, False
            announced = membership.announced(self.work)
            self.ledger.spend("recovery" if formed_before else "waiting")
            steps = [member.step or 0 for member in announced.members]
            self._resume_if_first(steps)
            try:
                formed = membership.form(announced, self.work)
            except StateLost as lost:
                log.warning("%s", lost)
                self._start_over()
                membership.broken(GroupError(str(lost)), self.work.position)
            self.ledger.spend("recovery" if formed_before else "rendezvous")
        if not formed_before and max(steps) > 0:
            self.ledger.forget()  # it joins others, who have told of the time so far
        if not told_before:
            self._reported_at = 0.0  # should this be rank 0 now, it reports at its next step
        self.activity.beat("computing")
        self.metrics.phase("training", membership.group.rank)

    def _resume_if_first(self, steps: list[int]) -> None:
        """A group in which nobody holds any state goes on from the newest checkpoint."""
        if self.work.position == 0 and max(steps, default=0) == 0:
            self.checkpoints.resume(self.work.training)

    def _start_over(self) -> None:
        """Go back to the newest checkpoint, or to the start."""
        self.activity.beat("loading")
        self.work = self._load()
        self.checkpoints.resume(self.work.training)

    # Training.

    def _train(self) -> dict[str, torch.Tensor]:
        """Train, and compress, to the end; the whole optimizer state."""
        while True:
            work, training = self.work, self.work.training
            try:
                if training.evaluation_due:
                    training.evaluate()
                    self.activity.beat("computing")
                    self.ledger.spend("productive")
                    self._report(force=True)
                elif work.paused:
                    return {}
                elif not work.trained:
                    if self._step():
                        self._join(together=True)
                elif not work.done:
                    self._compress()
                else:
                    return training.optimizer_state()
            except GroupError as error:
                log.warning("position %d: %s", work.position, error)
                self._broke(error)

    def _compress(self) -> None:
        """Do one bit of the compression; a soft change takes place before it, as a hard one."""
        work, membership = self.work, self.membership
        self.faults.begin_step(work.position)
        if self.control.superseded(membership.generation):
            self._join()
            return
        work.compress()
        self._keep()
        self.activity.beat("computing")
        self.ledger.spend("productive")
        membership.set_phase("training", work.position)
        self._report()

    def _keep(self) -> None:
        """Rank 0 writes the model that the next step may fail on, once for each."""
        kept = self.work.kept
        if len(kept) <= self._kept or self.in_pool:  # what a pool's tasks share is kept for all
            return
        assert self.assignment is not None
        if self.membership.group.rank == 0:
            self.activity.beat("loading")
            keep(self.work, name=self.assignment.name, directory=self.settings.output)
            self._kept = len(kept)
        self.left_behind = "; the job's output keeps the trained model, weights.safetensors"
        if len(kept) > 1:
            self.left_behind += f", and the one after step {kept[-1]}, model.safetensors"

    def _broke(self, error: GroupError) -> None:
        if self.membership.group.rank != 0:
            self.ledger.forget()  # what rank 0 lived through before, it tells, or nobody does
        self.ledger.spend("retried")
        self.membership.broken(error, self.work.position)
        self._join()

    def _step(self) -> bool:
        """Do one step; whether the group ends at this boundary, for another one."""
        training, membership = self.work.training, self.membership
        self.faults.begin_step(training.steps_done)
        self.control.check(membership.generation)
        changes = self.control.superseded(membership.generation)
        self.metrics.begin_step()
        read_before = training.data_seconds
        done = training.step(flag=changes, ask=self.checkpoints.wanted())
        self.metrics.fetched(training.data_seconds - read_before)
        self.metrics.end_step(training.steps_done)
        self.activity.beat("computing")  # no exchange is waited for any more
        self.ledger.spend("productive")
        membership.set_phase("training", training.steps_done)
        if self.checkpoints.due(training.steps_done, asked=done.asked):
            self.checkpoints.save(training, membership.generation)
            self.ledger.spend("checkpoint")
        self._report()
        return done.flag

    def _report(self, *, force: bool = False) -> None:
        """Rank 0 tells how far it is: at its first step, every so often, at each stage after the
        training, however short, and when asked to."""
        if self.membership.group.rank != 0:
            self.ledger.forget()
            return
        training = self.work.training
        assert self.assignment is not None
        now, step, stage = time.monotonic(), training.steps_done, self.work.stage
        then, before = self._reported_at, self._reported_step
        news = force or stage != self._reported_stage
        if then and not news and now - then < self.assignment.report_seconds:
            return
        self._reported_at, self._reported_step, self._reported_stage = now, step, stage
        steps, batch = step - before, training.plan.batch_size
        rate = steps * batch / (now - then) if then and now > then and steps > 0 else 0.0
        self.control.send(
            StepReport(
                generation=self.membership.generation,
                step=step,
                total_steps=training.total_steps,
                epoch=training.order.epoch(max(step - 1, 0)),
                loss=training.history.last_loss or 0.0,
                samples_per_second=rate,
                metrics=training.history.last_metrics,
                stage=stage,
                seconds=self.ledger.take(),
            )
        )

    # Ends.

    def _finish(self, state: dict[str, torch.Tensor]) -> Outcome | None:
        """Write the result, or wait until rank 0 has; None where the group is needed again."""
        self.activity.beat("finishing")
        self.metrics.phase("finishing", self.membership.group.rank)
        self.membership.set_phase("finishing", self.work.position)
        result = None
        if self.work.paused:
            self._keep_state()
        if self.membership.group.rank == 0:
            result = self._pause() if self.work.paused else self._write(state)
        ended = self.say_goodbye(Finished(result=result))
        return Success(result=result) if ended or result is not None else None

    def _keep_state(self) -> None:
        """What the next stretch goes on from; without it that one begins at the start."""
        self.checkpoints.save(self.work.training, self.membership.generation)
        if not self.checkpoints.finish(KEEP_SECONDS):
            log.warning("the state of this task was not kept in time")

    def _pause(self) -> dict[str, Any]:
        """What is told of a task that pauses here."""
        assert self.assignment is not None and self.stretch is not None
        history = self.work.training.history
        result = {
            "number": self.stretch.number,
            "steps": self.work.training.steps_done,
            "figures": history.last_metrics or {},
        }
        self.ended = Ended(task=self.assignment.task, result=result)
        return result

    def _write(self, state: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Write the result; what is told of it."""
        assignment, stretch, directory = self.assignment, self.stretch, self.settings.output
        assert assignment is not None
        group, generation = self.membership.group, self.membership.generation
        place: dict[str, Any] = {"generations": generation, "workers": group.size}
        name = assignment.name
        if stretch is not None:
            directory, name = folder(directory, stretch), stretch.name
            place |= {"pool": stretch.pool, "number": stretch.number}
            place["parameters"] = dict(stretch.parameters)
        written = write_result(
            self.work,
            state,
            name=name,
            directory=directory,
            place=place,
            seconds=time.monotonic() - self.started,
            brief=stretch is not None,
        )
        if stretch is not None:
            forget_state(self.settings.output, stretch)
            result = told(written, stretch)
            self.ended = Ended(task=assignment.task, result=result)
            return result
        guard = (assignment.compression or {}).get("guard") or {}
        result = output.for_status(written, guard.get("metric") or "accuracy")
        # For the operator that is away: its pod's status says how the task ended.
        write_termination_message(Success(result=result), self.settings.termination_log)
        self.succeeded = True
        return result

    def say_goodbye(self, message: Finished | Failed) -> bool:
        """Tell the outcome until the coordinator has taken it in; False where it did not."""
        patient = isinstance(message, Finished) and (message.result is None or self.in_pool)
        seconds = FOREVER_SECONDS if patient else GOODBYE_SECONDS
        try:
            return self.control.wait_end(message, self.membership.generation, seconds)
        except TimeoutError:
            log.warning("the coordinator was away; the outcome is in the termination message")
            return True

    def _depart(self, departure: Departure) -> Outcome:
        """Leave; the last ones take care that the task can be taken up again."""
        step = self.work.training.steps_done
        if departure.last and step > 0 and self._can_save():
            seconds = self.settings.grace_seconds * LAST_CHECKPOINT_PART / 2
            self.checkpoints.finish(seconds)  # the one before, which would keep this one out
            self.checkpoints.save(self.work.training, self.membership.generation)
            if not self.checkpoints.finish(seconds):
                log.warning("the last checkpoint was not committed in time")
        return Left(message_line=f"left at step {step}")

    def _can_save(self) -> bool:
        """Whether the parts that those who leave save make a whole; alone, a worker saves all."""
        if self._together:
            return True
        try:  # The others of its last group are gone, and write no parts.
            self.work.training.join(Alone())
        except StateLost as lost:
            log.warning("no last checkpoint: %s", lost)
            return False
        return True
