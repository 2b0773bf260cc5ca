"""What a local run tells where nothing can be drawn: a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from shardwise.coordinator import TaskReport

LINE_SECONDS = 5.0


def lines(name: str) -> Callable[[TaskReport], None]:
    """A function that tells of each report of the job `name` that is due, on standard error."""
    last = -LINE_SECONDS

    def show(report: TaskReport) -> None:
        nonlocal last
        now, ended = time.monotonic(), report.state in ("finished", "failed")
        if now - last < LINE_SECONDS and not ended:
            return
        last = now
        if report.progress is None:
            text = _waiting(report)
        else:
            percent = 100 * report.progress.step // report.progress.total_steps
            text = f"{percent} % {describe(report)}"
        print(f"{name}: {text}", file=sys.stderr, flush=True)

    return show


def _waiting(report: TaskReport) -> str:
    return f"{len(report.connected)} of {report.workers} workers are here"


def describe(report: TaskReport) -> str:
    """Step, loss, rate and remaining time in words."""
    now = report.progress
    if now is None:
        return _waiting(report)
    parts = [f"step {now.step}/{now.total_steps}"]
    if now.eta_seconds is not None and now.step < now.total_steps:
        parts.append(f"{now.eta_seconds:.0f} s left")
    parts.append(f"loss {now.loss:.4f}")
    if "accuracy" in now.metrics:
        parts.append(f"accuracy {now.metrics['accuracy']:.2%}")
    if now.samples_per_second:
        parts.append(f"{now.samples_per_second:,.0f} samples/s")
    return " · ".join(parts)
