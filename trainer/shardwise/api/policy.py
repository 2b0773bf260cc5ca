"""Parts of `spec` that say how a job is run: checkpoints, restarts, time limits, cleaning up.

None of it changes the trained weights. Imported by `spec`; holds no rule across fields (those
are in `rules`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from shardwise.api.base import INT32, INT64, OPEN, SpecModel

ONE_YEAR_SECONDS = 31_536_000
MAX_RESTARTS = 100
URL_PATTERN = r"^[a-z][-a-z0-9+.]*://\S+$"
MANAGER_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$"

Seconds = Annotated[int | None, Field(ge=1, le=ONE_YEAR_SECONDS, json_schema_extra=INT32)]
SecondsOrNone = Annotated[int | None, Field(ge=0, le=ONE_YEAR_SECONDS, json_schema_extra=INT32)]
# Progress is reported every few seconds: a shorter limit would see stalls where there are none.
StallSeconds = Annotated[int | None, Field(ge=10, le=ONE_YEAR_SECONDS, json_schema_extra=INT32)]
Manager = Annotated[str | None, StringConstraints(max_length=63, pattern=MANAGER_PATTERN)]
CleanPodPolicy = Literal["None", "Running", "All"]


class Checkpoint(SpecModel):
    """Where and how often the state of the training is kept, so that it survives the loss of all
    workers."""

    every_steps: Annotated[int | None, Field(ge=1, le=1_000_000_000, json_schema_extra=INT64)] = (
        None
    )
    """everySteps is the number of steps between two checkpoints. Give either everySteps or
    everySeconds, not both."""

    every_seconds: Seconds = None
    """everySeconds is the time between two checkpoints. Give either everySteps or everySeconds,
    not both."""

    keep: Annotated[int, Field(ge=1, le=100, json_schema_extra=INT32)] = 2
    """keep is how many of the newest checkpoints are kept; older ones are removed."""

    volume: Annotated[
        dict[str, Any] | None, Field(min_length=1, max_length=1, json_schema_extra=OPEN)
    ] = None
    """volume is a Kubernetes volume source that all workers can write to, as in a pod's `volumes`
    without the name; for example `persistentVolumeClaim: {claimName: checkpoints}`. The job
    writes into a directory of its own name there. Give either volume or url, not both."""

    url: Annotated[str | None, StringConstraints(max_length=1024, pattern=URL_PATTERN)] = None
    """url is where an object store takes the checkpoints, as fsspec writes it; for example
    `s3://bucket/jobs`. The job writes under its namespace and name there. Credentials come from
    the environment of the worker pods (spec.template). Give either volume or url, not both."""


class RestartPolicy(SpecModel):
    """How many failures of workers the job puts up with. Workers that are preempted, drained,
    scaled down or deleted do not count."""

    max_restarts: Annotated[int, Field(ge=0, le=MAX_RESTARTS, json_schema_extra=INT32)] = 10
    """maxRestarts is how many failed workers are replaced within windowSeconds. One more, and
    the job has failed."""

    window_seconds: Annotated[int, Field(ge=60, le=ONE_YEAR_SECONDS, json_schema_extra=INT32)] = (
        3600
    )
    """windowSeconds is how long a restart counts."""
