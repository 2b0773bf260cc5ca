"""The parts of a status: progress, workers, result, last failure; and its tidy JSON form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shardwise.api.base import StatusModel
from shardwise.api.compression import MAX_ARTIFACTS, MAX_STEPS
from shardwise.api.types import Artifact, CompressionRow
from shardwise.coordinator.report import Progress
from shardwise_operator import names
from shardwise_operator.clamp import clamped
from shardwise_operator.decide.acceptance import Acceptance
from shardwise_operator.decide.conditions import format_time
from shardwise_operator.decide.failures import PodFailure, newest_failure
from shardwise_operator.decide.outcome import Failed
from shardwise_operator.decide.pods import vacant_indices
from shardwise_operator.observe import ConfigMapView, Observed


def tidy(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status as the API types have it: absent fields left out, texts cut to their bounds, and
    what a worker told beyond every bound brought within it."""
    return clamped({key: value for key, value in status.items() if value is not None})


def progress_status(progress: Progress) -> dict[str, Any]:
    eta = progress.eta_seconds
    # Of what comes after the training, nobody knows how long it takes.
    known = eta is not None and math.isfinite(eta) and not progress.stage
    seconds = max(0, round(eta)) if known and eta is not None else None
    total = max(progress.total_steps, 0)
    most = 99 if progress.stage else 100
    return {
        "step": progress.step,
        "totalSteps": total,
        "epoch": progress.epoch,
        "percent": min(most, progress.step * 100 // total) if total else 0,
        "stage": progress.stage or None,
        "estimatedRemainingSeconds": seconds,
        "estimatedRemaining": duration(seconds) if seconds is not None else None,
        "samplesPerSecond": f"{progress.samples_per_second:.1f}",
        "loss": f"{progress.loss:.4g}",
        "lastUpdateTime": format_time(datetime.fromtimestamp(progress.at, UTC)),
    }


def without_eta(progress: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The progress of a job that does not train: nobody knows when it ends."""
    if progress is None:
        return None
    gone = ("estimatedRemaining", "estimatedRemainingSeconds")
    return {key: value for key, value in progress.items() if key not in gone}


def finished_progress(old: Mapping[str, Any] | None, steps: int, now: datetime) -> dict[str, Any]:
    return {
        **(old or {}),
        "step": steps,
        "totalSteps": steps,
        "percent": 100,
        "stage": None,
        "estimatedRemainingSeconds": 0,
        "estimatedRemaining": "0s",
        "lastUpdateTime": format_time(now),
    }


def workers_status(
    observed: Observed, accepted: Acceptance, generation: int, wanted: int
) -> dict[str, Any]:
    """Ready are the workers whose container runs, or has ended well."""
    ready = len({pod.index for pod in observed.pods if pod.running or pod.succeeded})
    report, job = observed.report, accepted.job
    old = observed.job.status.get("workers") or {}
    there = sorted({pod.index for pod in observed.pods if not pod.deleting})
    names_ = [names.pod_name(observed.job.name, index) for index in there]
    vacant = vacant_indices(observed, wanted)
    names_ += [names.pod_name(observed.job.name, index) for index in vacant]
    return {
        "desired": accepted.desired,
        "ready": ready,
        "min": accepted.least,
        "max": job.spec.workers.most if job else old.get("max"),
        "standby": accepted.standby,
        # A coordinator that has just been started knows of no group yet.
        "members": (
            len(report.members)
            if report and (report.members or observed.settled)
            else old.get("members", 0)
        ),
        "generation": generation,
        "summary": f"{ready}/{accepted.desired + accepted.standby}",
        "selector": f"{names.POD_SELECTOR},{names.JOB_UID}={observed.job.uid}",
        "names": names_,
    }


_NUMBERS = ("steps", "recoveries")
_WORDS = ("weightsSha256", "optimizerSha256", "path")
_FIGURES = ("seconds", "samplesPerSecond")


def result_status(result: Mapping[str, Any], pod: str) -> dict[str, Any]:
    """What the pod left, with every value brought into the status's form."""
    status: dict[str, Any] = {"pod": pod} if pod else {}
    for key in _NUMBERS:
        value = result.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            status[key] = value
    for key in _WORDS:
        if isinstance(result.get(key), str):
            status[key] = result[key]
    for key in _FIGURES:
        if result.get(key) is not None:
            status[key] = str(result[key])
    metrics = result.get("metrics") or ()
    pairs = (
        metrics.items()
        if isinstance(metrics, Mapping)
        else ((m.get("name"), m.get("value")) for m in _listed(metrics) if isinstance(m, Mapping))
    )
    listed = {str(name)[:63]: str(value) for name, value in pairs if name}
    status["metrics"] = [{"name": n, "value": v} for n, v in sorted(listed.items())[:64]]
    return status


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def compression_status(result: Mapping[str, Any]) -> dict[str, Any]:
    """status.artifacts and status.compression, of what the pod left; without what has no form."""
    found: dict[str, Any] = {}
    artifacts = _models(Artifact, result.get("artifacts"), MAX_ARTIFACTS)
    if artifacts:
        found["artifacts"] = artifacts
    table = result.get("compression")
    if isinstance(table, Mapping):
        undone = table.get("undone")
        found["compression"] = {
            "rows": _models(CompressionRow, table.get("rows"), MAX_STEPS + 1),
            "undone": undone if undone and isinstance(undone, str) else None,
        }
    return found


def _models(model: type[StatusModel], items: object, most: int) -> list[dict[str, Any]]:
    """The first items that have the model's form, under names that are all different."""
    found: dict[str, dict[str, Any]] = {}
    for item in items if isinstance(items, list | tuple) else ():
        try:
            read = model.model_validate(item).to_json()
        except ValueError:  # Of a worker of another version: the rest can still be told.
            continue
        while read["name"] in found:  # a step that is called as the row before all steps
            read["name"] += "'"
        found[read["name"]] = read
    return list(found.values())[:most]


def failure_status(failed: Failed | PodFailure, now: datetime) -> dict[str, Any]:
    """status.lastFailure: of the job, or of a worker that is replaced."""
    pod = failed.pod
    code = pod.exit_code if pod else None
    named = failed.named_pod if isinstance(failed, Failed) else ""
    return {
        "pod": (pod.name if pod else named) or None,
        "rank": pod.index if pod else None,
        "node": (pod.node if pod else "") or None,
        "exitCode": code if code is not None and -255 <= code <= 255 else None,
        "reason": failed.reason,
        "message": failed.message,
        "time": format_time((pod.ended_at if pod else None) or now),
        "logTail": failed.detail or None,
    }


def last_failure(
    old: Mapping[str, Any], failures: Sequence[PodFailure], now: datetime
) -> Mapping[str, Any] | None:
    """The newest one, of those that the pods tell of and the one in the status."""
    known: Mapping[str, Any] | None = old.get("lastFailure")
    failure = newest_failure(failures)
    if failure is None:
        return known
    new = failure_status(failure, now)
    if known is None:
        return new
    if new["time"] < str(known.get("time") or ""):
        return known
    # Of one without a time of its own, the time is when it was first told of.
    same = (known.get("pod"), known.get("reason")) == (new["pod"], new["reason"])
    return known if same and failure.pod.ended_at is None else new


def code_status(old: Mapping[str, Any], found: ConfigMapView | None) -> Mapping[str, Any] | None:
    """What the workers were made with: known from the first pods on, then left alone."""
    if old.get("code"):
        return dict(old["code"])
    if found is None or found.sha256 is None:
        return None
    return {"configMap": found.name, "sha256": found.sha256}


def trained(result: Mapping[str, Any], compression: Mapping[str, Any] | None = None) -> str:
    """The end in numbers: steps, time, the last metrics, and what the compression came to."""
    metrics = ", ".join(f"{m['name']} {m['value']}" for m in result.get("metrics") or ())
    line = f"trained {result.get('steps', '?')} steps in {result.get('seconds', '?')} s"
    line = f"{line}: {metrics}" if metrics else line
    rows = (compression or {}).get("rows") or ()
    if not rows:
        return line
    undone = (compression or {}).get("undone")
    kept = [row for row in rows if row["name"] != undone] or rows
    before, after = kept[0], kept[-1]
    line += f"; compressed from {before.get('bytes', '?')} to {after.get('bytes', '?')} bytes"
    line += f", {after['metric']}" if after.get("metric") else ""
    return f"{line}; the guard took step {undone} back" if undone else line


def duration(seconds: int) -> str:
    """2m10s, 1h05m, 3d04h: two units at the most."""
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3600:02}h"
