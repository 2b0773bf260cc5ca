"""What can be found before anything is trained: names, shapes and structure, on a copy of the
model and with a few samples. A job that cannot end well should fail in seconds, not in hours."""

from __future__ import annotations

from shardwise.compression.errors import CompressionError
from shardwise.compression.settings import Guard
from shardwise.compression.steps import Steps
from shardwise.compression.subject import Subject
from shardwise.engine.evaluation import figure_names
from shardwise.engine.group import Alone
from shardwise.engine.task import Task


def check(steps: Steps, subject: Subject) -> None:
    """Go through all steps without their sums. `subject` is spent on it.

    Raises:
        CompressionError, UserCodeError: a step cannot be done on this model, or the guard cannot
            watch it.
    """
    if steps.settings.guard is not None:
        check_guard(steps.settings.guard, steps.trained)
    for number, step in enumerate(steps.settings.steps):
        cuts = step.prune is not None and step.prune.pattern == "Channels"
        for place, make in enumerate(steps.stages(subject, number)):
            steps.around.beat("loading")
            stage = make()
            if cuts and place == 0:
                # How many go follows from the settings, which ones from the weights: the shapes
                # that the next steps find are those that they will find.
                stage.advance(Alone())


def check_guard(guard: Guard, task: Task) -> None:
    """Raises CompressionError: there is nothing to watch."""
    if task.evaluation is None:
        raise CompressionError(
            "spec.compression.guard: the task has no evaluation samples to measure "
            f"{guard.metric} on; give Task(evaluation=...) or remove the guard"
        )
    names = figure_names(task)
    if guard.metric not in names:
        raise CompressionError(
            f"spec.compression.guard.metric: {guard.metric!r} is none of the task's metrics; "
            f"it has {', '.join(names)}"
        )
