"""The parts of `status` that tell what went wrong: losses, recoveries, restarts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shardwise.api.base import (
    INT32,
    Count32,
    Count64,
    Name,
    StatusModel,
    Tail,
    Text,
    Time,
    Type,
    Word,
    map_by,
)


class LastFailure(StatusModel):
    """What went wrong last."""

    pod: Name | None = None
    """pod is the worker pod that failed."""

    rank: Count32 | None = None
    """rank is its place in the group."""

    node: Name | None = None
    """node is where it ran."""

    exit_code: Annotated[int | None, Field(ge=-255, le=255, json_schema_extra=INT32)] = None
    """exitCode is the exit code of its container."""

    reason: Word | None = None
    """reason is one word that says why, for example UserCodeFailed."""

    message: Text | None = None
    """message says the same to people."""

    time: Time | None = None
    """time is when it went wrong."""

    log_tail: Tail | None = None
    """logTail is the end of its log or of its traceback."""


class CauseCount(StatusModel):
    """How often the group of workers changed for one reason."""

    cause: Type
    """cause is the reason: Killed, Hung, Unreachable, Broken, Preempted, Joined or Resized."""

    count: Count32
    """count is how often."""


class LastRecovery(StatusModel):
    """The last time that a worker was lost and the training went on without it."""

    worker: Name | None = None
    """worker is the pod that was lost."""

    cause: Word | None = None
    """cause is why, as in recoveriesByCause."""

    step: Count64 | None = None
    """step is the step that was under way, and was done again."""

    seconds: Word | None = None
    """seconds is how long it took from noticing the loss to going on."""

    time: Time | None = None
    """time is when it was noticed."""


class Restart(StatusModel):
    """One worker that failed and was replaced, or one stall of the training."""

    uid: Annotated[str, Field(min_length=1, max_length=128)]
    """uid is that of the pod, so that no failure counts twice."""

    pod: Name | None = None
    """pod is the worker that failed; absent for a stall."""

    reason: Word | None = None
    """reason is one word that says why."""

    time: Time
    """time is when it failed."""


class RestartsStatus(StatusModel):
    """Workers that failed and were replaced, and stalls. Those that were preempted, evicted or
    lost with their node do not count."""

    total: Count32 | None = None
    """total is how many there were since the job began."""

    in_window: Count32 | None = None
    """inWindow is how many count against spec.restartPolicy.maxRestarts now."""

    recent: Annotated[
        tuple[Restart, ...] | None, Field(max_length=128, json_schema_extra=map_by("uid"))
    ] = None
    """recent are those that count now, the oldest first."""

    step: Count64 | None = None
    """step is the step that the training stood at at the last of them."""

    without_progress: Count32 | None = None
    """withoutProgress is how often workers were replaced one after the other without a step in
    between; the waits before the next grow with it."""

    obsolete_time: Time | None = None
    """obsoleteTime is set when the training stalls: workers created up to then are replaced."""
