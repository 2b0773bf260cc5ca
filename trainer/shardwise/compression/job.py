"""From a job's spec to its pipeline: what a worker needs to know of compression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shardwise.compression.pipeline import Pipeline
from shardwise.compression.sharing import Shared
from shardwise.compression.sources import load_weights
from shardwise.engine.activity import Beat, silent
from shardwise.engine.plan import Plan
from shardwise.engine.task import Task

LoadEntrypoint = Callable[[str, Mapping[str, int | str], int], Task]
"""(entrypoint, parameters, seed) to a task, as the worker loads its own."""


def trains(spec: Mapping[str, Any]) -> bool:
    """Whether the job trains the model first; else `begin` takes it from spec's source."""
    return not spec.get("source")


def begin(
    task: Task,
    spec: Mapping[str, Any],
    trainer: Mapping[str, Any],
    *,
    load: LoadEntrypoint,
    beat: Beat = silent,
    shared: Shared | None = None,
) -> Pipeline:
    """The compression of a job's model. Call it on loading as well, with `check` after it.

    Args:
        task: the job's own, its model trained; or, where `trains(spec)` is false, as loaded.
        spec: spec.compression, validated, in its JSON form.
        trainer: spec.trainer likewise.
        load: loads another task; its parameters are the job's own, with those named laid over.
        beat, shared: see Pipeline.

    Raises:
        CompressionError: the steps do not go together, or a file is another model's.
    """
    source = spec.get("source")
    if source:
        load_weights(task.model, source["file"], "spec.compression.source.file")

    def load_other(wanted: Mapping[str, Any]) -> Task:
        entrypoint = wanted.get("entrypoint") or trainer["entrypoint"]
        parameters = dict(wanted.get("parameters") or {})
        if entrypoint == trainer["entrypoint"]:
            parameters = dict(trainer.get("parameters") or {}) | parameters
        return load(entrypoint, parameters, trainer.get("seed", 0))

    return Pipeline(task, spec, Plan.from_spec(trainer), load=load_other, beat=beat, shared=shared)
