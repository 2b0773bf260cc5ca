"""The parts of a status: progress, workers, result, last failure; and its tidy JSON form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shardwise.api.types import OptimizationJobStatus
from shardwise.coordinator.report import Progress
from shardwise_operator import names
from shardwise_operator.decide.conditions import format_time
from shardwise_operator.decide.outcome import Failed
from shardwise_operator.observe import Observed


def tidy(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status as the API types have it: absent fields left out, texts cut to their bounds."""
    return OptimizationJobStatus.model_validate(status).to_json()


def progress_status(progress: Progress) -> dict[str, Any]:
    eta = progress.eta_seconds
    known = eta is not None and math.isfinite(eta)
    seconds = max(0, round(eta)) if known and eta is not None else None
    total = max(progress.total_steps, 0)
    return {
        "step": progress.step,
        "totalSteps": total,
        "epoch": progress.epoch,
        "percent": min(100, progress.step * 100 // total) if total else 0,
        "estimatedRemainingSeconds": seconds,
        "estimatedRemaining": duration(seconds) if seconds is not None else None,
        "samplesPerSecond": f"{progress.samples_per_second:.1f}",
        "loss": f"{progress.loss:.4g}",
        "lastUpdateTime": format_time(datetime.fromtimestamp(progress.at, UTC)),
    }


def finished_progress(old: Mapping[str, Any] | None, steps: int, now: datetime) -> dict[str, Any]:
    return {
        **(old or {}),
        "step": steps,
        "totalSteps": steps,
        "percent": 100,
        "estimatedRemainingSeconds": 0,
        "estimatedRemaining": "0s",
        "lastUpdateTime": format_time(now),
    }


def workers_status(
    observed: Observed, desired: int, generation: int, bounds: tuple[int, int] | None
) -> dict[str, Any]:
    """Ready are the workers whose container runs, or has ended well."""
    ready = len({pod.index for pod in observed.pods if pod.running or pod.succeeded})
    old = observed.job.status.get("workers") or {}
    return {
        "desired": desired,
        "ready": ready,
        "min": bounds[0] if bounds else old.get("min"),
        "max": bounds[1] if bounds else old.get("max"),
        "generation": generation,
        "summary": f"{ready}/{desired}",
        "selector": f"{names.POD_SELECTOR},{names.JOB_UID}={observed.job.uid}",
        "names": [names.pod_name(observed.job.name, index) for index in range(desired)],
    }


_NUMBERS = ("steps", "recoveries")
_WORDS = ("weightsSha256", "optimizerSha256", "path")
_FIGURES = ("seconds", "samplesPerSecond")


def result_status(result: Mapping[str, Any]) -> dict[str, Any]:
    """What worker 0 left, with every value brought into the status's form."""
    status: dict[str, Any] = {}
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
        else ((m.get("name"), m.get("value")) for m in metrics if isinstance(m, Mapping))
    )
    listed = {str(name)[:63]: str(value) for name, value in pairs if name}
    status["metrics"] = [{"name": n, "value": v} for n, v in sorted(listed.items())[:64]]
    return status


def failure_status(failed: Failed) -> dict[str, Any]:
    pod = failed.pod
    code = pod.exit_code if pod else None
    return {
        "pod": (pod.name if pod else failed.named_pod) or None,
        "rank": pod.index if pod else None,
        "node": (pod.node if pod else "") or None,
        "exitCode": code if code is not None and -255 <= code <= 255 else None,
        "reason": failed.reason,
        "message": failed.message,
        "logTail": failed.detail or None,
    }


def duration(seconds: int) -> str:
    """2m10s, 1h05m, 3d04h: two units at the most."""
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3600:02}h"
