"""From a step of the settings to its stages, and what was done to the structure done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardwise.compression import distilling, pruning, quantizing, structured
from shardwise.compression.settings import Compression
from shardwise.compression.stages import Stage, Surroundings
from shardwise.compression.subject import Subject
from shardwise.engine.task import Task


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of one compression.

    Attributes:
        trained: the job's own model before all steps.
        load: makes a task from {entrypoint?, parameters?}; what is left out is the job's own.
    """

    settings: Compression
    around: Surroundings
    trained: Task
    load: distilling.LoadTask

    def stages(self, subject: Subject, number: int) -> Sequence[Callable[[], Stage]]:
        """What makes the stages of a step, each when it is reached.

        Raises:
            CompressionError: a name is none of the model's, or the step cannot be done on it.
        """
        step = self.settings.steps[number]
        if step.prune is not None:
            return pruning.stages(subject, step.prune, step.fine_tune, self.around)
        if step.quantize is not None:
            return quantizing.stages(subject, step.quantize, step.fine_tune, self.around)
        assert step.distill is not None and step.fine_tune is not None
        return distilling.stages(
            subject,
            step.distill,
            step.fine_tune,
            self.around,
            trained=self.trained,
            number=number,
            load=self.load,
        )

    def replay(self, subject: Subject, edit: str) -> None:
        """Do one of `Subject.edits` again; the weights are loaded afterwards."""
        kind = edit.partition(" ")[0]
        if kind == structured.EDIT:
            structured.replay(subject, edit)
        elif kind == distilling.EDIT:
            distilling.replay(subject, edit, self.settings, self.load)
        elif kind == quantizing.EDIT:
            quantizing.replay(subject, edit)
        else:
            raise AssertionError(f"unknown edit {edit!r}")
