"""Runs one job with processes of this machine: the coordinator here, the workers forked beside it.

The parent holds the coordinator and shows progress; it never imports torch. A launcher imports
torch once and forks the workers. They meet over loopback, exactly as pods do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shardwise.api import conditions, environment
from shardwise.api.types import OptimizationJob
from shardwise.coordinator import (
    Assignment,
    Coordinator,
    Failure,
    Hello,
    Identity,
    Refused,
    TaskReport,
)

TASK = "local"
GRACE_SECONDS = 0.5
REPORT_SECONDS = 0.2
END_SECONDS = 90.0
"""For the workers to end by themselves once the task is over."""
INTERRUPTED = "Interrupted"


@dataclass(frozen=True)
class Ended:
    """How a local run ended: `failure` is None where it succeeded."""

    report: TaskReport
    failure: Failure | None
    interrupted: bool = False


async def run(
    job: OptimizationJob, *, workers: int, output: Path, show: Callable[[TaskReport], None]
) -> Ended:
    """Run the job with `workers` processes; its files go into `output`.

    SIGINT and SIGTERM end it cleanly. `show` is called with each new report.
    """
    token = secrets.token_urlsafe(32)
    changed = asyncio.Event()

    async def authenticate(hello: Hello) -> Identity:
        if not secrets.compare_digest(hello.token, token):
            raise Refused("WrongToken", "the token is not the one of this run")
        return Identity(task=TASK, worker=hello.worker, index=hello.index)

    coordinator = Coordinator(
        authenticate=authenticate, on_change=lambda _: changed.set(), grace_seconds=GRACE_SECONDS
    )
    port = await coordinator.start("127.0.0.1", 0)
    assert job.metadata.name is not None
    coordinator.open_task(
        Assignment(
            task=TASK,
            name=job.metadata.name,
            workers=workers,
            trainer=job.spec.trainer.model_dump(mode="json", by_alias=True, exclude_none=True),
            report_seconds=REPORT_SECONDS,
        )
    )
    try:
        with _token_file(token) as path, _interruption() as interrupted:
            launcher = await _launch(workers, port, path, output)
            try:
                return await _follow(coordinator, launcher, changed, interrupted, show)
            finally:
                await _end(launcher)
    finally:
        await coordinator.stop()


async def _launch(
    workers: int, port: int, token_file: Path, output: Path
) -> asyncio.subprocess.Process:
    environ = dict(os.environ) | {
        environment.COORDINATOR: f"127.0.0.1:{port}",
        environment.TOKEN_FILE: str(token_file),
        environment.OUTPUT: str(output),
        environment.ADDRESS: "127.0.0.1",
        # User code beside the manifest or in the folder one stands in, as `python` itself has it.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.getenv("PYTHONPATH")])),
    }
    environ.setdefault("SHARDWISE_LOG_LEVEL", "WARNING")
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "shardwise.worker", "--count", str(workers)),
        env=environ,
        start_new_session=True,  # Ctrl-C is the parent's to handle
    )


async def _follow(
    coordinator: Coordinator,
    launcher: asyncio.subprocess.Process,
    changed: asyncio.Event,
    interrupted: asyncio.Event,
    show: Callable[[TaskReport], None],
) -> Ended:
    """Show progress until the task is over, the workers are gone, or a signal comes."""
    exit_code = asyncio.create_task(launcher.wait())
    stop = asyncio.create_task(interrupted.wait())
    try:
        while True:
            news = asyncio.create_task(changed.wait())
            await asyncio.wait({exit_code, stop, news}, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            changed.clear()
            report = coordinator.report(TASK)
            assert report is not None, "the task is open until the run ends"
            show(report)
            if stop.done():
                coordinator.close_task(TASK, INTERRUPTED, "interrupted")
                return Ended(report, None, interrupted=True)
            if report.state in ("finished", "failed"):
                return Ended(report, report.failure)
            if exit_code.done():
                code = exit_code.result()
                message = f"the workers ended with exit code {code} before the task was over"
                return Ended(report, Failure(reason=conditions.WORKER_LOST, message=message))
    finally:
        exit_code.cancel()
        stop.cancel()


async def _end(launcher: asyncio.subprocess.Process) -> None:
    """Wait for the workers; where they do not end, end them."""
    for number, seconds in ((None, END_SECONDS), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(launcher.wait(), seconds)
            return


@contextlib.contextmanager
def _token_file(token: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shardwise-") as folder:  # mode 0700
        path = Path(folder, "token")
        path.write_text(token)
        yield path


@contextlib.contextmanager
def _interruption() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, event.set)
    try:
        yield event
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
