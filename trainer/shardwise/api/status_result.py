"""The parts of `status` that tell what came out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shardwise.api.base import Count32, Count64, Name, Sha256, StatusModel, Text, Word, map_by


class Metric(StatusModel):
    """One figure of the last evaluation."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """name is what was measured, for example accuracy."""

    value: Word
    """value is the figure, as a decimal number."""


class Result(StatusModel):
    """What came out."""

    steps: Count64 | None = None
    """steps is the number of updates that were done."""

    metrics: Annotated[
        tuple[Metric, ...] | None,
        Field(max_length=64, json_schema_extra=map_by("name")),
    ] = None
    """metrics are the figures of the last evaluation."""

    weights_sha256: Sha256 | None = None
    """weightsSha256 is the hash of the trained weights: the same for any number of workers."""

    optimizer_sha256: Sha256 | None = None
    """optimizerSha256 is the hash of the optimizer's final state."""

    seconds: Word | None = None
    """seconds is how long the training took."""

    samples_per_second: Word | None = None
    """samplesPerSecond is the rate of the whole group over the whole training."""

    recoveries: Count32 | None = None
    """recoveries is how often the training went on after a worker was lost."""

    path: Text | None = None
    """path is where the files are on the output volume."""

    pod: Name | None = None
    """pod is the worker that wrote the result."""
