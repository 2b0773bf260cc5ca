"""What a local run shows: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from shardwise.coordinator import TaskReport

LINE_SECONDS = 5.0


@contextlib.contextmanager
def display(name: str) -> Iterator[Callable[[TaskReport], None]]:
    """A function that shows each report of the job `name`, on standard error."""
    if sys.stderr.isatty():
        with _bar(name) as show:
            yield show
    else:
        yield _lines(name)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[TaskReport], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("[bold]{task.description}", table_column=Column(min_width=len(name))),
        BarColumn(bar_width=16, table_column=Column(min_width=16)),
        TextColumn("{task.percentage:>3.0f} %", table_column=Column(min_width=5)),
        # What a narrow terminal cuts short.
        TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        bar = progress.add_task(name, total=None, text="starting the workers")

        def show(report: TaskReport) -> None:
            if report.progress is None:
                progress.update(bar, text=_waiting(report))
            else:
                now = report.progress
                text = describe(report)
                progress.update(bar, total=now.total_steps, completed=now.step, text=text)

        yield show


def _lines(name: str) -> Callable[[TaskReport], None]:
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
