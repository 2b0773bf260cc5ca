"""The step `distill`: a student learns from a teacher's outputs (Hinton, Vinyals and Dean 2015).

loss = alpha · T² · KL(teacher ‖ student, both at temperature T) + (1 - alpha) · the task's loss
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shardwise.compression.errors import CompressionError
from shardwise.compression.examples import caught_calls
from shardwise.compression.finetune import Loss, Tuning
from shardwise.compression.reduction import Samples, gather_rows
from shardwise.compression.settings import Compression, Distill, FineTune
from shardwise.compression.sources import load_weights
from shardwise.compression.stages import Stage, Surroundings
from shardwise.compression.subject import Subject
from shardwise.engine.data import Batch, BatchedDataset, Dataset, gather
from shardwise.engine.group import Group
from shardwise.engine.task import Task
from shardwise.engine.usercode import user_code

EDIT = "student"
CACHE_BYTES = 512 * 2**20
"""Above this the teacher's outputs are computed anew at each step."""

LoadTask = Callable[[Mapping[str, Any]], Task]
"""From {entrypoint?, parameters?} to a task; what is left out is the job's own."""


class Indexed:
    """Some samples of a data set; a batch is (places in the selection, the samples)."""

    def __init__(self, dataset: BatchedDataset | Dataset, chosen: Tensor) -> None:
        self.dataset, self.chosen = dataset, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, indices: Tensor) -> tuple[Tensor, Batch]:
        return indices, gather(self.dataset, self.chosen[indices])


def stages(
    subject: Subject,
    settings: Distill,
    tune: FineTune,
    around: Surroundings,
    *,
    trained: Task,
    number: int,
    load: LoadTask,
) -> Sequence[Callable[[], Stage]]:
    """What makes the stages of one distillation, each when it is reached.

    Args:
        trained: the job's own model before all steps: the teacher, unless another one is named.
    """
    teacher = _teacher(settings, trained, load)
    box: dict[str, Tensor] = {}

    def begin() -> Stage:
        if settings.student is not None:
            edit = f"{EDIT} {number}"
            become_student(subject, settings, load)
            subject.edits.append(edit)
        return _Outputs(subject, settings, around, teacher, box)

    def tuning() -> Stage:
        return _Distilling(subject, settings, tune, around, teacher, box)

    return [begin, tuning]


def become_student(subject: Subject, settings: Distill, load: LoadTask) -> None:
    """Put the student in the place of the model; it starts from its own initial weights."""
    assert settings.student is not None
    subject.task = load(settings.student)
    subject.masks, subject.quantized, subject.ranges = {}, {}, {}
    subject.activations = "none"


def replay(subject: Subject, edit: str, settings: Compression, load: LoadTask) -> None:
    step = settings.steps[int(edit.partition(" ")[2])]
    assert step.distill is not None
    become_student(subject, step.distill, load)


def _teacher(settings: Distill, trained: Task, load: LoadTask) -> nn.Module:
    wanted = settings.teacher or {}
    named = {key: wanted[key] for key in ("entrypoint", "parameters") if key in wanted}
    # An entrypoint without a file has loaded the weights of its model by itself.
    model = load(named).model if named else copy.deepcopy(trained.model)
    if "file" in wanted:
        load_weights(model, wanted["file"], "distill.teacher.file")
    return model.eval().requires_grad_(False)


def _samples(subject: Subject, settings: Distill, around: Surroundings) -> Samples:
    return Samples.drawn(
        subject.task.train,
        settings.samples,
        batch_size=around.calibration_batch_size,
        shards=around.shards,
        seed=around.seed,
        beat=around.beat,
        shared=around.shared,
    )


@torch.no_grad()
def _outputs(teacher: nn.Module, loss: Loss, batch: Batch) -> Tensor:
    """What the teacher gives for a batch of the student's samples."""
    with caught_calls(teacher) as calls, user_code("loss, of distill.teacher"):
        loss(teacher, batch)
    return _logits(calls, "the teacher")


def _logits(calls: Sequence[tuple[Any, Any]], who: str) -> Tensor:
    if len(calls) != 1 or not isinstance(calls[0][1], Tensor) or calls[0][1].dim() < 2:
        raise CompressionError(
            f"distill: loss called {who} {len(calls)} times; to distill, it must be called once "
            "and give one tensor of logits, shape (samples, ..., classes)"
        )
    found: Tensor = calls[0][1]
    return found


class _Outputs:
    """A stage of at most one advance: the teacher's outputs for all samples, computed once."""

    def __init__(
        self,
        subject: Subject,
        settings: Distill,
        around: Surroundings,
        teacher: nn.Module,
        box: dict[str, Tensor],
    ) -> None:
        self._subject, self._teacher, self._box = subject, teacher, box
        self._features = settings.features
        self._samples = _samples(subject, settings, around)
        self._wanted = self._fits() and settings.teacher_outputs == "Once"
        self.position = 0

    def _fits(self) -> bool:
        """Whether all outputs may be kept; the student's first outputs show that they fit."""
        loss, task = self._subject.task.loss, self._subject.task
        with user_code("train"):
            batch = gather(task.train, self._samples.indices[:1])
        mode = task.model.training
        with (
            _caught(self._teacher, self._features, "teacher") as from_teacher,
            _caught(task.model.eval(), self._features, "student") as from_student,
        ):
            theirs = _outputs(self._teacher, loss, batch)
            ours = _outputs(task.model, loss, batch)
        task.model.train(mode)
        if self._features is not None:
            _distance(_only(from_student, "student"), _only(from_teacher, "teacher"))
        if theirs.shape != ours.shape:
            raise CompressionError(
                f"distill.teacher: its outputs have shape {tuple(theirs.shape)} for one sample, "
                f"and the student's {tuple(ours.shape)}; they must be equal: same classes, same "
                "length"
            )
        return theirs.nbytes * len(self._samples) <= CACHE_BYTES

    @property
    def done(self) -> bool:
        return self.position >= 1 or not self._wanted

    def advance(self, group: Group) -> None:
        loss = self._subject.task.loss
        outputs = gather_rows(
            group,
            self._samples,
            lambda batch: _outputs(self._teacher, loss, batch),
            self._samples.memo("outputs", self._teacher),
        )
        self._box["outputs"] = outputs
        self.position += 1

    def state(self) -> dict[str, Tensor]:
        return dict(self._box)

    def load_state(self, position: int, state: Mapping[str, Tensor]) -> None:
        self._box |= state
        self.position = position


class _Distilling(Tuning):
    """The training on the teacher's outputs."""

    def __init__(
        self,
        subject: Subject,
        settings: Distill,
        tune: FineTune,
        around: Surroundings,
        teacher: nn.Module,
        box: dict[str, Tensor],
    ) -> None:
        self._settings, self._teacher, self._box = settings, teacher, box
        self._hard = subject.task.loss
        chosen = _samples(subject, settings, around).indices
        train = Indexed(subject.task.train, chosen)
        super().__init__(subject, tune, around, loss=self._loss, train=train)

    def _loss(self, model: nn.Module, batch: tuple[Tensor, Batch]) -> Tensor:
        places, samples = batch
        settings, features = self._settings, self._settings.features
        with caught_calls(model) as calls, _caught(model, features, "student") as ours:
            hard = self._hard(model, samples)
        logits = _logits(calls, "the student")
        with _caught(self._teacher, features, "teacher") as theirs:
            if features is None and "outputs" in self._box:
                target = self._box["outputs"][places]
            else:
                target = _outputs(self._teacher, self._hard, samples)
        t = settings.temperature
        log_p = (target / t).log_softmax(-1)
        log_q = (logits / t).log_softmax(-1)
        # One value a sample: summed over classes, mean over positions where there are any.
        divergence = (log_p.exp() * (log_p - log_q)).sum(-1).view(len(logits), -1).mean(1)
        loss = settings.alpha * t * t * divergence + (1.0 - settings.alpha) * hard
        if features is not None:
            distance = _distance(_only(ours, "student"), _only(theirs, "teacher"))
            loss = loss + float(features.get("weight", "1")) * distance
        return loss

    def state(self) -> dict[str, Tensor]:
        return super().state() | {f"teacher/{k}": v for k, v in self._box.items()}

    def load_state(self, position: int, state: Mapping[str, Tensor]) -> None:
        if "teacher/outputs" in state:
            self._box["outputs"] = state["teacher/outputs"]
        super().load_state(position, state)


class _caught:  # noqa: N801 - a context manager
    """What a named layer gives while inside: a list of tensors."""

    def __init__(self, model: nn.Module, features: Mapping[str, Any] | None, who: str) -> None:
        self._found: list[Tensor] = []
        self._layer: nn.Module | None = None
        if features is not None:
            layers = dict(model.named_modules())
            name = features[who]
            if name not in layers:
                raise CompressionError(
                    f"distill.features.{who}: the {who} has no layer {name!r}; it has "
                    f"{', '.join(filter(None, layers))}"
                )
            self._layer = layers[name]

    def __enter__(self) -> list[Tensor]:
        if self._layer is not None:
            self._handle = self._layer.register_forward_hook(
                lambda module, args, result: self._found.append(result)
            )
        return self._found

    def __exit__(self, *error: object) -> None:
        if self._layer is not None:
            self._handle.remove()


def _only(found: Sequence[object], who: str) -> Tensor:
    if len(found) != 1 or not isinstance(found[0], Tensor):
        raise CompressionError(
            f"distill.features.{who}: the layer gave {len(found)} results in one pass, or no "
            "tensor; name one that is called once and gives a tensor"
        )
    return found[0]


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    if ours.shape != theirs.shape:
        raise CompressionError(
            f"distill.features: the student's layer gives shape {tuple(ours.shape)}, and the "
            f"teacher's {tuple(theirs.shape)}; name layers of the same width"
        )
    return (ours - theirs).square().flatten(1).mean(1)
