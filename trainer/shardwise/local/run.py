"""Runs one job with processes of this machine: the coordinator here, the workers forked beside it.

The parent holds the coordinator and shows progress; it never imports torch. A launcher imports
torch once and forks the workers, again where one crashes. They meet over loopback, as pods do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shardwise.api import conditions, environment
from shardwise.api.types import OptimizationJob
from shardwise.coordinator import (
    Assignment,
    Coordinator,
    Credential,
    Failure,
    Identity,
    PoolAssignment,
    Refused,
    TaskReport,
)
from shardwise.worker.former import FOLDER, forget_results, forget_states

TASK = "local"
REPORT_SECONDS = 0.2
GATHER_SECONDS = 60.0
"""All workers are started at once; only one that crashes at its start is not waited for."""
END_SECONDS = 90.0
"""For the workers to end by themselves once the task is over."""
INTERRUPTED = "Interrupted"


@dataclass(frozen=True)
class Ended:
    """How a local run ended: `failure` is None where it succeeded."""

    report: TaskReport
    failure: Failure | None
    interrupted: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a job is run here: none of it changes the result.

    Attributes:
        workers: processes.
        output: the folder that gets the result.
        faults: to strike on purpose, each as worker.faults reads it.
        crashes: steps at which the coordinator is ended and begun anew.
        watchdog_seconds: after which a worker that stands still is begun anew.
    """

    workers: int
    output: Path
    faults: Sequence[str] = ()
    crashes: Sequence[int] = ()
    watchdog_seconds: float | None = None


async def run(job: OptimizationJob, setting: Setting, show: Callable[[TaskReport], None]) -> Ended:
    """Run the job to its end. SIGINT and SIGTERM end it cleanly; `show` gets each new report."""
    with tempfile.TemporaryDirectory(prefix="shardwise-") as folder:  # mode 0700
        local = LocalRun(job, setting, Path(folder))
        await local.start()
        try:
            with _interruption() as interrupted:
                return await local.follow(interrupted, show)
        finally:
            await local.stop()


class LocalRun:
    """One job on this machine: a coordinator in this process, and a launcher with the workers."""

    host = "127.0.0.1"

    def __init__(self, job: OptimizationJob, setting: Setting, folder: Path) -> None:
        self.setting = setting
        self._folder = folder
        self._token = secrets.token_urlsafe(32)
        self._changed = asyncio.Event()
        self._crashes = sorted(setting.crashes)
        self._port = 0
        self._between: TaskReport | None = None
        """The last report of a coordinator that has ended, until the next one has the task."""
        spec = job.spec
        assert job.metadata.name is not None
        shared: dict[str, Any] = {
            "name": job.metadata.name,
            "workers": setting.workers,
            "trainer": spec.trainer.model_dump(mode="json", by_alias=True, exclude_none=True),
            "checkpoint": None if spec.checkpoint is None else spec.checkpoint.to_json(),
            "compression": None if spec.compression is None else spec.compression.to_json(),
            "report_seconds": REPORT_SECONDS,
            "detection_seconds": spec.workers.detection_milliseconds / 1000,
        }
        self._record = ""
        """Of a pool's results, as the last coordinator had it."""
        self._assignment: Assignment | PoolAssignment
        if spec.tasks is not None:
            # Another run's results in this folder are not this one's.
            self._key = secrets.token_hex(8)
            tasks = spec.tasks.to_json()
            self._assignment = PoolAssignment(pool=self._key, tasks=tasks, **shared)
        else:
            self._key = TASK
            self._assignment = Assignment(
                task=TASK,
                min_workers=min(spec.workers.min, setting.workers),
                gather_seconds=GATHER_SECONDS,
                **shared,
            )
        self._checkpoints: str | None = None
        if spec.checkpoint is not None:
            self._checkpoints = spec.checkpoint.url or str(setting.output / "checkpoints")
        self.coordinator = self._coordinator()
        self.launcher: asyncio.subprocess.Process | None = None

    def _coordinator(self) -> Coordinator:
        async def authenticate(credential: Credential) -> Identity:
            if not secrets.compare_digest(credential.token, self._token):
                raise Refused("WrongToken", "the token is not the one of this run")
            return Identity(task=self._key, worker=None, index=None)  # one for all workers

        return Coordinator(
            authenticate=authenticate,
            on_change=lambda _: self._changed.set(),
        )

    async def start(self) -> None:
        self._port = await self.coordinator.start(self.host, self._port)
        self._forget_former()
        self._open(self._assignment)
        self.launcher = await self._launch()

    def _forget_former(self) -> None:
        """What an earlier run has left in this folder is not to be taken for this one's."""
        output = self.setting.output
        with contextlib.suppress(OSError):  # The workers will say what is wrong with the folder.
            forget_results(output)
        if isinstance(self._assignment, PoolAssignment):
            shutil.rmtree(output / FOLDER, ignore_errors=True)
            forget_states(output)

    def _open(self, assignment: Assignment | PoolAssignment) -> None:
        if isinstance(assignment, PoolAssignment):
            self.coordinator.open_pool(assignment)
        else:
            self.coordinator.open_task(assignment)

    def add_worker(self, index: int) -> None:
        """Start one more worker: a free index, or one whose worker has left."""
        assert self.launcher is not None and self.launcher.stdin is not None
        self.launcher.stdin.write(f"start {index}\n".encode())

    async def restart_coordinator(self) -> None:
        """What an operator's restart is to the workers: the next one knows only the high-water
        mark of generations and the totals."""
        before = self._between = self.report()
        try:
            await self.coordinator.stop()
            self.coordinator = self._coordinator()
            await self.coordinator.start(self.host, self._port)
            self._reopen(before)
        finally:
            self._between = None

    def _reopen(self, before: TaskReport) -> None:
        """Open the task again, with what is known of it from the one before."""
        totals: dict[str, Any] = {
            "recoveries": before.recoveries,
            "seconds": before.seconds,
            "lost_steps": before.lost_steps,
        }
        if isinstance(self._assignment, PoolAssignment):
            # It has no tasks to tell of while it goes through the results of the one before it.
            if before.tasks is not None:
                self._record = before.tasks.record
            record = self._record
            self._open(replace(self._assignment, began=True, record=record, **totals))
            return
        self._open(
            replace(
                self._assignment,
                generation_floor=before.generation,
                reached_step=0 if before.progress is None else before.progress.step,
                **totals,
            )
        )

    @property
    def markers(self) -> Path:
        """One file for each fault that has struck."""
        return self._folder / "faults"

    def report(self) -> TaskReport:
        report = self._between or self.coordinator.report(self._key)
        assert report is not None, "the task is open until the run ends"
        return report

    async def stop(self) -> None:
        """Wait for the workers; where they do not end, end them."""
        if self.launcher is not None:
            await _end(self.launcher)
        await self.coordinator.stop()
        if isinstance(self._assignment, PoolAssignment):
            forget_states(self.setting.output)

    async def follow(self, interrupted: asyncio.Event, show: Callable[[TaskReport], None]) -> Ended:
        """Show progress until the task is over, the workers are gone, or a signal comes."""
        assert self.launcher is not None
        exit_code = asyncio.create_task(self.launcher.wait())
        stop = asyncio.create_task(interrupted.wait())
        try:
            while True:
                news = asyncio.create_task(self._changed.wait())
                await asyncio.wait({exit_code, stop, news}, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                self._changed.clear()
                report = self.report()
                show(report)
                if stop.done():
                    self.coordinator.close_task(self._key, INTERRUPTED, "interrupted")
                    return Ended(report, None, interrupted=True)
                if report.state in ("finished", "failed"):
                    return Ended(report, report.failure)
                if exit_code.done():
                    return Ended(report, self._gone(exit_code.result()))
                await self._crash(report)
        finally:
            exit_code.cancel()
            stop.cancel()

    def _gone(self, code: int) -> Failure:
        """Why the workers ended before the task: what one of them has left to say."""
        for path in sorted(self._folder.glob("termination-*")):
            left = json.loads(path.read_text())
            if left["outcome"] == "failed":
                return Failure(
                    reason=left["reason"], message=left["message"], detail=left["detail"]
                )
        message = f"the workers ended with exit code {code} before the task was over"
        return Failure(reason=conditions.WORKER_LOST, message=message)

    async def _crash(self, report: TaskReport) -> None:
        step = 0 if report.progress is None else report.progress.step
        if self._crashes and step >= self._crashes[0]:
            self._crashes.pop(0)
            await self.restart_coordinator()

    async def _launch(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command(),
            env=dict(os.environ) | self.environ(),
            stdin=asyncio.subprocess.PIPE,  # its end tells the launcher that this process is gone
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )

    def command(self) -> list[str]:
        """What starts the workers."""
        return [sys.executable, "-m", "shardwise.worker", "--count", str(self.setting.workers)]

    def environ(self) -> dict[str, str]:
        """What the workers are told, besides their index."""
        token_file = self._folder / "token"
        token_file.write_text(self._token)
        self.markers.mkdir(exist_ok=True)
        setting = self.setting
        environ = {
            environment.COORDINATOR: f"{self.host}:{self._port}",
            environment.TOKEN_FILE: str(token_file),
            environment.JOB: f"local/{self._assignment.name}",
            environment.OUTPUT: str(setting.output),
            environment.ADDRESS: self.host,
            environment.FAULTS: ",".join(setting.faults),
            environment.FAULT_MARKERS: str(self.markers),
            environment.TERMINATION_LOG: str(self._folder / "termination"),
            "SHARDWISE_LOG_LEVEL": os.environ.get("SHARDWISE_LOG_LEVEL", "ERROR"),
            # User code beside the manifest or in the folder one stands in, as `python` has it.
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.getenv("PYTHONPATH")])),
        }
        if isinstance(self._assignment, PoolAssignment):
            environ[environment.POOL] = "1"
        if self._checkpoints is not None:
            environ[environment.CHECKPOINT] = self._checkpoints
        if setting.watchdog_seconds is not None:
            environ[environment.WATCHDOG_SECONDS] = str(setting.watchdog_seconds)
        return environ


async def _end(launcher: asyncio.subprocess.Process) -> None:
    for number, seconds in ((None, END_SECONDS), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(launcher.wait(), seconds)
            return


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
