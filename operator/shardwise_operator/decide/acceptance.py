"""Whether the spec may be worked on, and what of it is in force.

First policy of a decision. Once a job has started, the spec.trainer, spec.compression and
spec.tasks that it started with stay in force: an edit of them is told about and changes nothing.
Numbers of workers may change at any time; those that `kubectl scale` sets beyond the bounds are
clamped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from shardwise.api import conditions as c
from shardwise.api.compression import Compression
from shardwise.api.errors import FieldError, InvalidJob
from shardwise.api.figures import source_errors
from shardwise.api.policy import RestartPolicy
from shardwise.api.shape import too_deep
from shardwise.api.types import OptimizationJob, Tasks, Trainer, split_trainer, trainer_sha256
from shardwise.api.validation import check_depth, validate
from shardwise_operator.decide.template import template_errors
from shardwise_operator.jobs import MAX_BYTES, TOO_LARGE
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
    """The spec as it is now, with the replicas clamped; None where it is invalid."""
    trainer: Mapping[str, Any] = field(hash=False)
    """What OptimizationJob.trainer_json gave; empty where it is not known any more."""
    desired: int
    """Members of the group."""
    least: int
    """The fewest members that it goes on with."""
    standby: int
    spec_sha256: str
    creatable: bool = True
    """Pods can be made of the spec as it is now."""

    @property
    def restart_policy(self) -> RestartPolicy:
        return self.job.spec.restart_policy if self.job else RestartPolicy()


def accept(observed: Observed) -> Acceptance:
    status = observed.job.status
    kept = next((pod.trainer for pod in observed.pods if pod.trainer is not None), None)
    started = bool(status.get("specSha256")) or bool(observed.pods)
    kept_sha = status.get("specSha256") or (_sha(kept) if kept is not None else "")
    message = "the spec is valid"
    reason = c.VALID
    template: list[FieldError] = []
    try:
        job = _valid(observed.job.manifest)
        template = template_errors(observed.job.manifest, observed.server_minor)
        if not started:
            template += _refused(observed)
        if template:
            raise InvalidJob(template)
        if not started:
            _check_code(observed, job)
    except InvalidJob as invalid:
        clamped = _clamped(observed.job.manifest) if started and not template else None
        if clamped is None:
            found = _invalid(observed, invalid, started, kept or {}, kept_sha)
            return replace(found, creatable=not template and _renders(observed))
        job, message = clamped
        reason = c.REPLICAS_CLAMPED
    now_sha = trainer_sha256(job.spec.trainer, job.spec.compression, job.spec.tasks)
    changed = started and kept_sha not in ("", now_sha)
    if changed:
        reason = c.IMMUTABLE_FIELD_CHANGED
        message = (
            f"{_changed(job, kept, kept_sha)}: was changed after the start, and the running "
            "workers keep what they started with; undo the change, or delete the job and apply it "
            "anew"
        )
    return Acceptance(
        accepted=not changed,
        reason=reason,
        message=message,
        started=started,
        job=job,
        trainer=kept or ({} if changed else job.trainer_json()),
        desired=job.spec.workers.replicas,
        least=job.spec.workers.min,
        standby=job.spec.workers.standby,
        spec_sha256=kept_sha if started and kept_sha else now_sha,
    )


def _refused(observed: Observed) -> list[FieldError]:
    """The API server cannot make pods of it: it has the last word."""
    return [
        FieldError(
            "spec.template", None, f"no pod can be made of it: {error.message}", "correct it"
        )
        for error in observed.creation_errors
        if error.reason == c.CONTAINER_CONFIG_ERROR and error.what.startswith("pod ")
    ][:1]


def _renders(observed: Observed) -> bool:
    """Of a spec that is invalid otherwise: workers may still be replaced by its template."""
    manifest = observed.job.manifest
    if TOO_LARGE in manifest or too_deep(manifest.get("spec"), "spec") is not None:
        return False
    spec = manifest["spec"]
    parts = [spec.get(part) for part in ("template", "output", "checkpoint")]
    inner = [part.get("spec") for part in parts[:1] if isinstance(part, Mapping)]
    meta = [part.get("metadata") for part in parts[:1] if isinstance(part, Mapping)]
    if not all(part is None or isinstance(part, Mapping) for part in (*parts, *inner, *meta)):
        return False
    return not template_errors(manifest, observed.server_minor)


READ = ("apiVersion", "kind", "metadata", "spec")


def _valid(manifest: Mapping[str, Any]) -> OptimizationJob:
    """The job of the manifest. A list of a thousand tasks takes most of a second, so the last
    answers about jobs with tasks are kept. Raises InvalidJob."""
    _check_shape(manifest)
    if not (manifest.get("spec") or {}).get("tasks"):
        return validate({k: v for k, v in manifest.items() if k in READ})
    meta = {"name": (manifest.get("metadata") or {}).get("name")}
    kept = {key: manifest.get(key) for key in ("apiVersion", "kind", "spec")}
    found = _validated(json.dumps({**kept, "metadata": meta}, sort_keys=True))
    if isinstance(found, tuple):
        raise InvalidJob(found)
    return found


def _check_shape(manifest: Mapping[str, Any]) -> None:
    """Not too large, and not too deep for what reads it from here on. Raises InvalidJob."""
    size = manifest.get(TOO_LARGE)
    if size is not None:
        problem = f"has {size} bytes as JSON, and {MAX_BYTES} are the most that is read"
        remedy = "put long texts into the code, and tasks into a spec.tasks.sweep"
        raise InvalidJob([FieldError("spec", size, problem, remedy)])
    check_depth(manifest)


@lru_cache(maxsize=128)
def _validated(text: str) -> OptimizationJob | tuple[FieldError, ...]:
    try:
        return validate(json.loads(text))
    except InvalidJob as invalid:
        return invalid.errors


def _check_code(observed: Observed, job: OptimizationJob) -> None:
    """The entrypoint takes what it is given, and gives what is asked of it, as far as its text
    tells. Raises InvalidJob."""
    if observed.source is None:
        return
    function = job.spec.trainer.entrypoint.partition(":")[2]
    errors = source_errors(job, observed.source, function)
    if errors:
        raise InvalidJob(errors)


def _invalid(
    observed: Observed,
    invalid: InvalidJob,
    started: bool,
    trainer: Mapping[str, Any],
    spec_sha256: str,
) -> Acceptance:
    workers = observed.job.status.get("workers") or {}
    desired = workers.get("desired") or len({pod.index for pod in observed.pods})
    return Acceptance(
        accepted=False,
        reason=invalid.reason,
        message=str(invalid) + (" (the running workers go on as before)" if started else ""),
        started=started,
        job=None,
        trainer=trainer,
        desired=desired,
        least=min(workers.get("min") or 1, max(desired, 1)),
        standby=workers.get("standby") or 0,
        spec_sha256=spec_sha256,
    )


def _clamped(manifest: Mapping[str, Any]) -> tuple[OptimizationJob, str] | None:
    """The job with its replicas brought within their bounds, and what is said of it; None where
    that alone does not make it valid."""
    spec = manifest.get("spec") or {}
    workers, trainer = spec.get("workers"), spec.get("trainer")
    if not isinstance(workers, Mapping) or not isinstance(trainer, Mapping):
        return None
    asked, least, most = workers.get("replicas"), workers.get("min", 1), workers.get("max")
    # A pool may have more workers than one task can use.
    shards = trainer.get("shards") if spec.get("tasks") is None else None
    bounds = [number for number in (most, shards) if isinstance(number, int)]
    if not isinstance(asked, int) or not isinstance(least, int) or not bounds:
        return None
    used = max(least, min(asked, *bounds))
    content = {**manifest, "spec": {**spec, "workers": {**workers, "replicas": used}}}
    try:
        job = validate(content)
    except InvalidJob:
        return None
    bound = "spec.workers.min" if used > asked else "spec.workers.max and spec.trainer.shards"
    return job, (
        f"spec.workers.replicas is {asked}, beyond what {bound} allow: the job uses {used}; "
        f"scale it to {used}, or change the bound"
    )


def _sha(accepted: Mapping[str, Any]) -> str:
    trainer, compression, tasks = split_trainer(accepted)
    try:
        return trainer_sha256(
            Trainer.model_validate(trainer),
            None if compression is None else Compression.model_validate(compression),
            None if tasks is None else Tasks.model_validate(tasks),
        )
    except ValueError:
        return ""  # Another version's annotation: nothing to compare with.


def _changed(job: OptimizationJob, kept: Mapping[str, Any] | None, kept_sha: str) -> str:
    """The fields that are not as they were, as far as what is left of the old ones tells."""
    spec = job.spec
    if kept is None:
        # Nothing but the hash is left: was something added beside what it names?
        if trainer_sha256(spec.trainer) == kept_sha:
            given = {"spec.compression": spec.compression, "spec.tasks": spec.tasks}
            return " and ".join(name for name, part in given.items() if part is not None)
        if trainer_sha256(spec.trainer, spec.compression) == kept_sha:
            return "spec.tasks"
        if trainer_sha256(spec.trainer, None, spec.tasks) == kept_sha:
            return "spec.compression"
        return "spec.trainer, spec.compression or spec.tasks"
    trainer, compression, tasks = split_trainer(kept)
    _, now_compression, now_tasks = split_trainer(job.trainer_json())
    changes = {
        "spec.trainer": _sha(trainer) != trainer_sha256(spec.trainer),
        "spec.compression": compression != now_compression,
        "spec.tasks": tasks != now_tasks,
    }
    return " and ".join(name for name, changed in changes.items() if changed) or "spec.trainer"
