"""Reads an OptimizationJob from a manifest, or says everything that is wrong with it.

Run by the CLI before a local run and by the operator on every job, so that the same manifest
gets the same answer with and without a cluster that has CEL. Does no I/O. Each error names the
field, the value and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from shardwise.api.errors import FieldError, InvalidJob
from shardwise.api.explain import explain, path
from shardwise.api.rules import RULES
from shardwise.api.shape import MAX_DEPTH, too_deep
from shardwise.api.tasks_check import sweep_errors
from shardwise.api.types import OptimizationJob

__all__ = ["FieldError", "InvalidJob", "check", "validate"]


def validate(manifest: Mapping[str, Any]) -> OptimizationJob:
    """The job that the manifest describes, without its status.

    Raises InvalidJob. Status is left out because it is ours: a status that another version wrote
    must not make a job invalid.
    """
    if not isinstance(manifest, Mapping):
        raise InvalidJob(
            [FieldError("manifest", manifest, "is not a mapping", "write apiVersion, kind, …")]
        )
    check_depth(manifest)
    content = {key: _plain(value) for key, value in manifest.items() if key != "status"}
    try:
        job = OptimizationJob.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        raise InvalidJob(
            [FieldError(path(e["loc"]), e["input"], *explain(e)) for e in found]
        ) from None
    check(job)
    return job


def check_depth(manifest: Mapping[str, Any]) -> None:
    """Not nested too deeply for what reads it from here on. Raises InvalidJob."""
    for part in ("spec", "metadata"):
        deep = too_deep(manifest.get(part), part)
        if deep is not None:
            problem = f"is nested deeper than {MAX_DEPTH} levels"
            raise InvalidJob([FieldError(deep, None, problem, "remove it: nothing reads it")])


def check(job: OptimizationJob) -> None:
    """The rules across fields, and what tasks must hold to. Raises InvalidJob."""
    broken = [
        FieldError(rule.field, rule.value(job), rule.problem(job), rule.remedy, rule.reason)
        for rule in RULES
        if not rule.holds(job)
    ]
    broken += sweep_errors(job)
    if broken:
        raise InvalidJob(broken)


def _plain(value: Any) -> Any:
    """Dicts and lists instead of the read-only views that clients hand out."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value
