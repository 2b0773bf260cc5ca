"""One worker's life: connect, load the task, form the group, train, write, end.

Reads top to bottom. What ends it is always an Outcome; `main` tells it to everybody.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

import torch

from shardwise.api import conditions
from shardwise.coordinator.protocol import Ack, Failed, Fault, Finished, StepReport
from shardwise.coordinator.report import Assignment
from shardwise.engine.group import Alone, Group, GroupError
from shardwise.engine.plan import Plan
from shardwise.engine.training import Training
from shardwise.engine.usercode import UserCodeError
from shardwise.worker import output
from shardwise.worker.control import Control, Superseded
from shardwise.worker.entrypoint import load_task
from shardwise.worker.history import History
from shardwise.worker.outcome import Failure, Outcome, Success, write_termination_message
from shardwise.worker.rendezvous import GlooGroup
from shardwise.worker.settings import Settings

log = logging.getLogger("shardwise.worker")

WAIT_SECONDS = 7 * 86400.0
"""For peers and the coordinator; the job's own deadlines are the operator's, and shorter."""
GOODBYE_SECONDS = 60.0


class GroupLost(Exception):  # noqa: N818 - an event
    """The group cannot go on with this step, and this version has no way back."""


def fingerprint() -> dict[str, str | int | float]:
    """What must be the same on all workers for the same bytes."""
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpuCapability": torch.backends.cpu.get_cpu_capability(),
        "device": "cpu",
    }


def main(settings: Settings) -> int:
    """Run one worker to its end; its exit code."""

    def end(outcome: Outcome) -> None:
        write_termination_message(outcome, settings.termination_log)
        if isinstance(outcome, Failure):
            log.error("%s: %s", outcome.reason, outcome.message_line)
            if outcome.detail:
                print(outcome.detail, file=sys.stderr, flush=True)

    def ended_by_coordinator(reason: str, message: str, refused: bool) -> None:
        # In the control thread, while training may hang in a transfer: nothing else can end it.
        if refused:
            failure = Failure.of(conditions.REFUSED_WORKER, message)
        else:  # whatever the reason, it is not this worker's: its exit code says so
            failure = Failure(reason=reason, message_line=message)
        end(failure)
        os._exit(failure.exit_code)

    control = Control(settings, fingerprint(), ended_by_coordinator)
    try:
        outcome: Outcome = Worker(settings, control).run()
    except UserCodeError as error:
        outcome = Failure.of(conditions.USER_CODE_FAILED, error.message, error.detail)
    except output.OutputError as error:
        outcome = Failure.of(conditions.OUTPUT_FAILED, str(error))
    except (GroupLost, TimeoutError) as error:
        outcome = Failure.of(conditions.WORKER_LOST, str(error))
    end(outcome)
    if isinstance(outcome, Success):
        told = control.deliver(Finished(result=outcome.result), GOODBYE_SECONDS)
    else:
        failed = Failed(
            reason=outcome.reason, message=outcome.message_line, detail=outcome.detail[-8000:]
        )
        told = control.deliver(failed, GOODBYE_SECONDS)
    if not told:
        log.warning("the coordinator was away; the outcome is in the termination message")
    return outcome.exit_code


class Worker:
    """One worker on one task."""

    def __init__(self, settings: Settings, control: Control) -> None:
        self.settings, self.control = settings, control
        self.history = History()
        self.generation = 0
        self.group: Group = Alone()
        self._reported = (0.0, 0)

    def run(self) -> Outcome:
        assignment = self.control.wait_assignment(WAIT_SECONDS)
        trainer = assignment.trainer
        torch.set_num_threads(trainer.get("threads", 1))
        plan = Plan.from_spec(trainer)
        task = load_task(trainer["entrypoint"], trainer.get("parameters") or {}, plan.seed)
        training = Training(task, plan)
        self._form_group(training)
        started = time.monotonic()
        state = self._train(training, assignment)
        seconds = time.monotonic() - started
        self.control.set_state(self.generation, "finished", training.steps_done)
        if self.group.rank != 0:
            return Success()
        result = self._write(training, state, assignment, seconds)
        return Success(result=output.for_status(result))

    def _form_group(self, training: Training) -> None:
        """Take part in generations until one connects."""
        while True:
            announced = self.control.wait_generation(self.generation, WAIT_SECONDS)
            self.generation = announced.generation
            step = training.steps_done
            self.control.set_state(self.generation, "forming", step)
            ack = Ack(generation=self.generation, step=step, digest=training.digest())
            self.control.send(ack)
            try:
                go = self.control.wait_go(self.generation, WAIT_SECONDS)
                names = [member.worker for member in go.members]
                rank, size = names.index(self.settings.worker), len(names)
                if len(set(go.steps)) > 1:
                    raise GroupLost(f"the workers stand at different steps: {list(go.steps)}")
                self.group = self._connect(rank, size)
                training.join(self.group)
            except (Superseded, GroupError) as error:
                log.info("generation %d did not form: %s", self.generation, error)
                self.control.send(Fault(generation=self.generation, message=str(error)))
                continue
            self.control.set_state(self.generation, "training", step)
            log.info("generation %d formed: rank %d of %d", self.generation, rank, size)
            return

    def _connect(self, rank: int, size: int) -> Group:
        if size == 1:
            return Alone()
        return GlooGroup(self.control, self.generation, rank, size, self.settings.address)

    def _train(self, training: Training, assignment: Assignment) -> dict[str, torch.Tensor]:
        """Train to the end; the whole optimizer state."""
        evaluated = 0
        while True:
            try:
                if training.evaluation_due and evaluated < training.steps_done:
                    metrics = training.evaluate()
                    evaluated = training.steps_done
                    self.history.evaluations.append((evaluated, metrics))
                    self._report(training, assignment.report_seconds, force=True)
                elif training.done:
                    return training.optimizer_state()
                else:
                    self._step(training)
                    self._report(training, assignment.report_seconds)
            except GroupError as error:
                log.warning("step %d: %s", training.steps_done, error)
                # Before the fault is sent: should the connection be down, the next hello says it.
                self.control.set_state(self.generation, "forming", training.steps_done)
                self.control.send(Fault(generation=self.generation, message=str(error)))
                self._form_group(training)

    def _step(self, training: Training) -> None:
        epoch = training.order.epoch(training.steps_done)
        done = training.step()
        self.control.set_state(self.generation, "training", training.steps_done)
        if self.group.rank == 0:
            row = (training.steps_done, epoch, done.loss, done.learning_rate)
            self.history.steps.append(row)

    def _report(self, training: Training, every: float, *, force: bool = False) -> None:
        """Rank 0 tells how far it is: at its first step, every so often, and when asked to."""
        now, step = time.monotonic(), training.steps_done
        then, before = self._reported
        if self.group.rank != 0 or not (force or before == 0 or now - then >= every):
            return
        self._reported = (now, step)
        steps, batch = step - before, training.plan.batch_size
        rate = steps * batch / (now - then) if before and now > then else 0.0
        _, epoch, loss, _ = self.history.steps[-1]
        self.control.send(
            StepReport(
                generation=self.generation,
                step=step,
                total_steps=training.total_steps,
                epoch=epoch,
                loss=loss,
                samples_per_second=rate,
                metrics=self.history.last_metrics,
            )
        )

    def _write(
        self,
        training: Training,
        state: dict[str, torch.Tensor],
        assignment: Assignment,
        seconds: float,
    ) -> dict[str, Any]:
        order = training.order
        full, rest = divmod(training.steps_done, order.steps_per_epoch)
        samples = full * order.samples + min(rest * order.batch_size, order.samples)
        result = {
            "job": assignment.name,
            "steps": training.steps_done,
            "metrics": self.history.last_metrics or {"trainingLoss": self.history.steps[-1][2]},
            "recoveries": 0,
            "workers": self.group.size,
            "partition": training.plan.partition,
            "seconds": round(seconds, 3),
            "samplesPerSecond": round(samples / max(seconds, 1e-9), 1),
            "versions": {
                "shardwise": version("shardwise"),
                "python": platform.python_version(),
                **fingerprint(),
                "threads": torch.get_num_threads(),
            },
        }
        optimizer = {
            f"{slot}/{name}": part
            for slot, vector in state.items()
            for name, part in training.model.named_parts(vector)
        }
        return output.write(
            self.settings.output,
            name=assignment.name,
            weights=dict(training.model.named_tensors()),
            optimizer=optimizer,
            history=self.history,
            result=result,
        )
