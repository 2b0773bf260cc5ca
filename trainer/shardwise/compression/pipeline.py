"""All steps of spec.compression, one after the other, as a machine that advances bit by bit.

`advance` makes at most one exchange with the group and commits its result after it. What it does
next follows from what it has done, so members at the same position are in the same state; one
that comes later copies the state of one that is furthest (`join`).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from shardwise.compression import distilling
from shardwise.compression.checking import check, check_guard
from shardwise.compression.deployment import Deployment, deploy
from shardwise.compression.errors import AccuracyDropped
from shardwise.compression.healing import copy_from_furthest
from shardwise.compression.measure import Row, count_macs, count_parameters
from shardwise.compression.settings import Compression, Step
from shardwise.compression.sharing import Shared
from shardwise.compression.stages import Stage, Surroundings, from_bytes, to_bytes
from shardwise.compression.steps import Steps
from shardwise.compression.subject import Subject, rebuilt
from shardwise.engine.activity import Beat, silent
from shardwise.engine.evaluation import Evaluation
from shardwise.engine.exchange import TreeSum
from shardwise.engine.group import Alone, Group
from shardwise.engine.plan import Plan
from shardwise.engine.task import Task
from shardwise.engine.traffic import Traffic

log = logging.getLogger("shardwise.compression")

BASELINE = "trained"


class Pipeline:
    """The compression of one trained model.

    Attributes:
        rows: the table: the trained model, then one row a finished step.
        subject: the model as it is now.
        undone: the step that the guard took back; "" for none.

    Raises:
        CompressionError: the settings do not go together, or do not fit the model.
    """

    def __init__(
        self,
        task: Task,
        spec: Mapping[str, Any],
        plan: Plan,
        *,
        load: distilling.LoadTask,
        beat: Beat = silent,
        shared: Shared | None = None,
    ) -> None:
        """
        Args:
            task: holds the trained model, which stays as it is.
            spec: spec.compression, validated, in its JSON form.
            load: makes a task from {entrypoint?, parameters?}; what is left out is the job's own.
            beat: called between micro-batches and around exchanges.
            shared: where statistics are kept that other tasks need too; None: nowhere.
        """
        self.settings = Compression.from_spec(spec)
        self.plan = plan
        self._task, self._beat = task, beat
        around = Surroundings(
            shards=plan.shards,
            seed=plan.seed,
            batch_size=plan.batch_size,
            calibration_samples=self.settings.calibration_samples,
            calibration_batch_size=self.settings.calibration_batch_size,
            beat=beat,
            shared=shared,
        )
        self._steps = Steps(settings=self.settings, around=around, trained=task, load=load)
        if self.settings.guard is not None:
            check_guard(self.settings.guard, task)
        self.subject = Subject(task=dataclasses.replace(task, model=copy.deepcopy(task.model)))
        self.rows: list[Row] = []
        self.undone = ""
        self.position = 0
        self.models: dict[str, Subject] = {}
        """A copy of the model of each row that this worker has measured, by step."""
        self._before = self.subject
        self._number = -1  # the step under way; -1 before the baseline is measured
        self._stages: Sequence[Callable[[], Stage]] = ()
        self._index = 0
        self._stage: Stage | None = None
        self._traffic = Traffic(Alone(), beat)

    @property
    def done(self) -> bool:
        return self._number >= len(self.settings.steps) or bool(self.undone)

    @property
    def step_name(self) -> str:
        """The step under way, for people."""
        return BASELINE if self._number < 0 or self.done else self._step.name

    @property
    def finished(self) -> list[str]:
        """The names of the steps that are done."""
        return [row.step for row in self.rows[1:]]

    @property
    def _step(self) -> Step:
        return self.settings.steps[self._number]

    def check(self) -> None:
        """Find what cannot be done, before anything is; changes nothing.

        Raises:
            CompressionError, UserCodeError: a step cannot be done on this model.
        """
        check(self._steps, self.subject.copy())

    def advance(self) -> None:
        """Do the next bit with the group that was joined.

        Raises:
            GroupError: a peer is gone; nothing has changed, so `join` another group and go on.
            AccuracyDropped: the guard fails the job; `rows` has the numbers.
            CompressionError, UserCodeError: the step cannot be done.
        """
        stage = self._current()
        if stage is not None:
            stage.advance(self._traffic)
        else:
            self._measure()
        self.position += 1

    def _current(self) -> Stage | None:
        """The stage under way; None when it is time to measure."""
        while self._index < len(self._stages):
            if self._stage is None:
                self._beat("loading")
                self._stage = self._stages[self._index]()
                self._beat("computing")
            if not self._stage.done:
                return self._stage
            self._stage, self._index = None, self._index + 1
        return None

    def _measure(self) -> None:
        """Measure the model, guard its accuracy, and go on to the next step."""
        subject, name = self.subject, self.step_name
        self._beat("loading")
        deployed = deploy(subject)
        metrics: dict[str, float] = {}
        if self._task.evaluation is not None:
            task = dataclasses.replace(subject.task, model=deployed.model)
            exchange = TreeSum(self._traffic, self.plan.shards, Evaluation.LENGTH, torch.float64)
            evaluation = Evaluation(task, self.plan)
            metrics = evaluation.run(exchange, self._number + 1, self._beat)
        self._beat("loading")
        row = self._row(name, deployed, metrics)
        if self._number >= 0 and not self._within_guard(row):
            self.subject = self._before
            self.undone = name
            notes = filter(None, (row.note, "taken back by the guard"))
            row = dataclasses.replace(row, note="; ".join(notes))
        else:
            self.models[name] = subject.copy()
        self.rows.append(row)
        self._begin(self._number + 1)

    def _row(self, name: str, deployed: Deployment, metrics: dict[str, float]) -> Row:
        parameters, nonzeros = count_parameters(self.subject)
        row = Row(
            step=name,
            metrics=metrics,
            parameters=parameters,
            nonzeros=nonzeros,
            macs=count_macs(self.subject.task, self.subject.model),
            bytes=len(deployed.packed()),
        )
        notes = []
        if self.rows and row.bytes > self.rows[-1].bytes:
            notes.append(f"larger than before ({row.bytes} bytes, {self.rows[-1].bytes} before)")
            log.warning("spec.compression: step %s made the artifact %s", name, notes[0])
        if self._number >= 0 and self._step.quantize is not None:
            notes += deployed.left_alone()
        return dataclasses.replace(row, note="; ".join(notes))

    def _within_guard(self, row: Row) -> bool:
        guard = self.settings.guard
        if guard is None:
            return True
        before, after = self.rows[0].metrics[guard.metric], row.metrics[guard.metric]
        if before - after <= guard.max_drop:
            return True
        message = (
            f"step {row.step} brought {guard.metric} from {before:.4f} to {after:.4f}: "
            f"{before - after:.4f} less, more than spec.compression.guard.maxAccuracyDrop "
            f"{guard.max_drop:g}"
        )
        if guard.on_guard == "KeepPrevious":
            log.warning("%s; the model before it is kept", message)
            return False
        raise AccuracyDropped(
            f"{message}; compress less, fine-tune longer, allow more, or set onGuard: KeepPrevious"
        )

    def _begin(self, number: int) -> None:
        """Set out on a step; its stages are made as they are reached."""
        self._number, self._index, self._stage = number, 0, None
        self._stages = ()
        if self.done:
            return
        self._before = self.subject.copy()
        self._stages = self._steps.stages(self.subject, number)

    def join(self, group: Group) -> None:
        """Go on with a group: who is behind copies the state of the first who is furthest.

        Raises:
            GroupError: the group broke; try the next one.
        """
        self._traffic = Traffic(group, self._beat)
        received = copy_from_furthest(self._traffic, self.position, self.to_bytes)
        if received is not None:
            self.load_bytes(received)

    def to_bytes(self) -> bytes:
        """The whole state: for a member that comes later, or a checkpoint."""
        stage = self._stage
        tensors = {f"now/{name}": tensor for name, tensor in self.subject.state().items()}
        tensors |= {f"before/{name}": tensor for name, tensor in self._before.state().items()}
        if stage is not None:
            tensors |= {f"stage/{name}": tensor for name, tensor in stage.state().items()}
        place = {
            "position": self.position,
            "number": self._number,
            "index": self._index,
            "stage": None if stage is None else stage.position,
            "undone": self.undone,
            "rows": [row.to_json() for row in self.rows],
            "edits": self.subject.edits,
            "editsBefore": self._before.edits,
        }
        tensors["place"] = to_bytes(json.dumps(place).encode())
        return save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})

    def load_bytes(self, data: bytes) -> None:
        """Take over a state that `to_bytes` gave; the task and the spec are the same."""
        tensors = load(data)
        place = json.loads(from_bytes(tensors.pop("place")))

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }

        self.subject = rebuilt(self._task, place["edits"], self._steps.replay)
        self.subject.load_state(part("now/"))
        self._before = rebuilt(self._task, place["editsBefore"], self._steps.replay)
        self._before.load_state(part("before/"))
        self.rows = [Row(**row) for row in place["rows"]]
        self.undone, self.position = place["undone"], place["position"]
        self._number, self._index, self._stage = place["number"], place["index"], None
        self._stages = (
            () if self.done or self._number < 0 else self._steps.stages(self.subject, self._number)
        )
        if place["stage"] is not None:
            self._stage = self._stages[self._index]()
            self._stage.load_state(place["stage"], part("stage/"))
