"""Whether the spec may be worked on, and which spec.trainer and worker count are in force.

First policy of a decision. Once a job has started, what it started with stays in force: an edit
of the job is told about and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardwise.api import conditions as c
from shardwise.api.types import OptimizationJob, Trainer, trainer_sha256
from shardwise.api.validation import InvalidJob, validate
from shardwise_operator.observe import Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """The answer: what is said of the spec, and what holds."""

    accepted: bool
    reason: str
    message: str
    started: bool
    """Workers have been made for this job; what follows is in force whatever the spec says now."""
    job: OptimizationJob | None
    """The spec as it is now; None where it is invalid."""
    trainer: Mapping[str, Any] = field(hash=False)
    desired: int
    spec_sha256: str


def accept(observed: Observed) -> Acceptance:
    status = observed.job.status
    kept = next((pod.trainer for pod in observed.pods if pod.trainer is not None), None)
    started = bool(status.get("specSha256")) or bool(observed.pods)
    kept_sha = status.get("specSha256") or (_sha(kept) if kept is not None else "")
    kept_desired = int((status.get("workers") or {}).get("desired") or 0)
    try:
        job = validate(observed.job.manifest)
    except InvalidJob as invalid:
        return Acceptance(
            accepted=False,
            reason=invalid.reason,
            message=str(invalid) + (" (the running workers go on as before)" if started else ""),
            started=started,
            job=None,
            trainer=kept or {},
            desired=kept_desired or len({pod.index for pod in observed.pods}),
            spec_sha256=kept_sha,
        )
    now_sha = trainer_sha256(job.spec.trainer)
    changed = started and kept_sha not in ("", now_sha)
    desired = kept_desired if started and kept_desired else job.spec.workers.replicas
    reason, message = c.VALID, "the spec is valid"
    if changed:
        reason = c.IMMUTABLE_FIELD_CHANGED
        message = (
            "spec.trainer: was changed after the start, and the running workers keep the one they "
            "started with; undo the change, or delete the job and apply it anew"
        )
    elif desired != job.spec.workers.replicas:
        message = (
            f"the spec is valid; spec.workers.replicas is {job.spec.workers.replicas} now, but "
            f"this version keeps the {desired} workers that the job started with"
        )
    return Acceptance(
        accepted=not changed,
        reason=reason,
        message=message,
        started=started,
        job=job,
        trainer=kept or ({} if changed else job.trainer_json()),
        desired=desired,
        spec_sha256=kept_sha if started and kept_sha else now_sha,
    )


def _sha(trainer: Mapping[str, Any]) -> str:
    try:
        return trainer_sha256(Trainer.model_validate(trainer))
    except ValueError:
        return ""  # Another version's annotation: nothing to compare with.
