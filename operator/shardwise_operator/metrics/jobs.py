"""The series of the jobs: read from each job's last report and status when they are asked for.

A running job's report is seconds old and counts; what has ended, or has not been heard of since
the operator came back, is told as the status has it. A series lives as long as its job.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shardwise.api import metrics as declared
from shardwise.coordinator import TaskReport
from shardwise_operator.metrics.exposition import Exposition, labels

ENDED = ("Succeeded", "Failed", "Invalid")
FAMILIES = tuple(
    family
    for family in declared.FAMILIES
    if family is declared.JOBS or family.name.startswith("shardwise_job_")
)
Job = Mapping[str, Any]
ReportOf = Callable[[str], TaskReport | None]


@dataclass(slots=True)
class Memory:
    """What no single report of a job tells."""

    created: float | None
    last_step: float
    """0 where the job was seen before its first step."""
    last_step_at: float | None = None
    first_step_at: float | None = None
    counted: frozenset[tuple[str, float]] = frozenset()
    """The recoveries among the report's last ones that are in the histogram."""
    recovery_counts: list[int] = field(
        default_factory=lambda: [0] * (len(declared.JOB_RECOVERY_SECONDS.buckets) + 1)
    )
    recovery_total: float = 0.0

    @classmethod
    def of(cls, job: Job) -> Memory:
        """Of a job that is seen for the first time by this process."""
        meta, progress = job.get("metadata") or {}, (job.get("status") or {}).get("progress") or {}
        created = _time(meta.get("creationTimestamp"))
        return cls(created=created, last_step=_number(progress.get("step")) or 0)

    def note(self, report: TaskReport) -> None:
        """Take in a report; the same one again changes nothing."""
        progress = report.progress
        if progress is not None and progress.step != self.last_step:
            if self.last_step == 0:
                self.first_step_at = progress.at
            self.last_step, self.last_step_at = progress.step, progress.at
        done = {(loss.worker, loss.at): loss.seconds for loss in report.losses if loss.seconds}
        for key in done.keys() - self.counted:
            bounds = declared.JOB_RECOVERY_SECONDS.buckets
            self.recovery_counts[bisect_left(bounds, done[key])] += 1
            self.recovery_total += done[key]
        self.counted = frozenset(done)


class JobSeries:
    """Turns jobs into samples."""

    def __init__(self) -> None:
        self._memories: dict[str, Memory] = {}

    def note(self, job: Job, report: TaskReport) -> None:
        """Tell of a report between two scrapes, so that no first step is dated too late."""
        uid = _uid(job)
        memory = self._memories.get(uid)
        if memory is None:
            memory = self._memories[uid] = Memory.of(job)
        memory.note(report)

    def text(self, jobs: Iterable[Job], report_of: ReportOf) -> str:
        """The samples of these jobs; what is remembered of others is dropped."""
        out = Exposition(FAMILIES)
        states: Counter[tuple[str, str]] = Counter()
        memories: dict[str, Memory] = {}
        for job in jobs:
            meta, status = job.get("metadata") or {}, job.get("status") or {}
            uid, state = _uid(job), str(status.get("state") or "Pending")
            namespace = str(meta.get("namespace") or "")
            states[namespace, state] += 1
            report = report_of(uid)
            memory = self._memories.get(uid) or Memory.of(job)
            if report is not None:
                memory.note(report)
            memories[uid] = memory
            base = labels(declared.JOB, (namespace, str(meta.get("name") or "")))
            _Writer(out, base).job(job.get("spec") or {}, status, state, report, memory)
        self._memories = memories
        for namespace in sorted({namespace for namespace, _ in states}):
            for state in declared.STATES:
                key = labels(declared.JOBS.labels, (namespace, state))
                out.add(declared.JOBS, key, states[namespace, state])
        return out.text()


class _Writer:
    """The samples of one job."""

    def __init__(self, out: Exposition, base: str) -> None:
        self._out, self._base = out, base

    def job(
        self,
        spec: Mapping[str, Any],
        status: Mapping[str, Any],
        state: str,
        report: TaskReport | None,
        memory: Memory,
    ) -> None:
        self._put(declared.JOB_STATE, 1, state=state)
        self._put(declared.JOB_CREATED, memory.created)
        step_seconds = self._progress(spec, status, report, memory)
        self._counts(status, report, memory)
        self._checkpoint(spec, status, report, step_seconds)
        self._tasks(spec, status, report)
        self._models(status)
        if state not in ENDED:
            self._workers(status, report)

    def _progress(
        self,
        spec: Mapping[str, Any],
        status: Mapping[str, Any],
        report: TaskReport | None,
        memory: Memory,
    ) -> float | None:
        """Gives the usual time of a step, where it is known."""
        told = status.get("progress") or {}
        now = report.progress if report is not None else None
        step = _number(told.get("step")) if now is None else now.step
        total = _number(told.get("totalSteps")) if now is None else now.total_steps
        rate = _number(told.get("samplesPerSecond")) if now is None else now.samples_per_second
        left = _number(told.get("estimatedRemainingSeconds")) if now is None else now.eta_seconds
        if report is not None and report.state == "waiting":
            left = None  # Nobody knows for what it will wait, and how long.
        batch = _number((spec.get("trainer") or {}).get("batchSize"))
        if step is not None and total:
            self._put(declared.JOB_PROGRESS, step / total)
        self._put(declared.JOB_STEP, step)
        self._put(declared.JOB_TARGET, total)
        self._put(declared.JOB_LOSS, _number(told.get("loss")) if now is None else now.loss)
        self._put(declared.JOB_SAMPLE_RATE, rate)
        self._put(declared.JOB_ETA, left)
        if step is not None and batch is not None and not _sweeps_batch_size(spec):
            self._put(declared.JOB_SAMPLES, step * batch)
        self._put(declared.JOB_LAST_STEP, memory.last_step_at or _time(told.get("lastUpdateTime")))
        if memory.first_step_at is not None and memory.created is not None:
            # The API server's clock, in whole seconds, and ours: never below zero.
            waited = max(0.0, memory.first_step_at - memory.created)
            self._put(declared.JOB_FIRST_STEP, waited)
        step_seconds = batch / rate if batch and rate else None
        self._put(declared.JOB_STEP_SECONDS, step_seconds)
        return step_seconds

    def _counts(self, status: Mapping[str, Any], report: TaskReport | None, memory: Memory) -> None:
        if report is not None:
            changes: Mapping[str, float] = report.recoveries
            seconds: Mapping[str, float] = report.seconds
            lost: float | None = report.lost_steps
        else:
            changes = _by(status.get("recoveriesByCause"), "cause", "count")
            seconds = _by(status.get("goodputSeconds"), "kind", "seconds")
            lost = _number(status.get("lostSteps"))
        # From zero on: a counter that appears with its first event hides that event from rate().
        for cause in (*declared.RECOVERY_CAUSES, *declared.RESIZE_CAUSES):
            resize = cause in declared.RESIZE_CAUSES
            family = declared.JOB_RESIZES if resize else declared.JOB_RECOVERIES
            self._put(family, changes.get(cause, 0), cause=cause)
        for kind in declared.SECONDS_KINDS:
            self._put(declared.JOB_SECONDS, seconds.get(kind, 0.0), kind=kind)
        self._put(declared.JOB_LOST_STEPS, lost or 0)
        self._put(declared.JOB_RESTARTS, _number((status.get("restarts") or {}).get("total")) or 0)
        if any(memory.recovery_counts):
            family = declared.JOB_RECOVERY_SECONDS
            counts, total = memory.recovery_counts, memory.recovery_total
            self._out.add_histogram(family, self._base, counts, total)

    def _checkpoint(
        self,
        spec: Mapping[str, Any],
        status: Mapping[str, Any],
        report: TaskReport | None,
        step_seconds: float | None,
    ) -> None:
        wanted = spec.get("checkpoint")
        if not wanted:
            return
        now = report.checkpoint if report is not None else None
        if now is not None:
            told: Mapping[str, Any] = {
                "step": now.step,
                "time": now.at if now.step else None,
                "bytes": now.bytes,
                "seconds": now.seconds,
                "error": now.error,
            }
        else:
            told = status.get("checkpoint") or {}
        at = told.get("time")
        self._put(declared.JOB_CHECKPOINT_STEP, _number(told.get("step")) or 0)
        self._put(declared.JOB_CHECKPOINT_TIME, at if isinstance(at, float) else _time(at))
        self._put(declared.JOB_CHECKPOINT_BYTES, _number(told.get("bytes")))
        self._put(declared.JOB_CHECKPOINT_SECONDS, _number(told.get("seconds")))
        self._put(declared.JOB_CHECKPOINT_FAILED, bool(told.get("error")))
        interval = _number(wanted.get("everySeconds"))
        every_steps = _number(wanted.get("everySteps"))
        if interval is None and every_steps is not None and step_seconds is not None:
            interval = every_steps * step_seconds
        self._put(declared.JOB_CHECKPOINT_INTERVAL, interval)

    def _tasks(
        self, spec: Mapping[str, Any], status: Mapping[str, Any], report: TaskReport | None
    ) -> None:
        told = status.get("tasks") or {}
        now = report.tasks if report is not None else None
        if now is None and not told:
            return
        for state in declared.TASK_STATES:
            key = state.lower()
            count = _number(told.get(key)) if now is None else getattr(now, key)
            self._put(declared.JOB_TASKS, count or 0, state=state)
        used = _number(told.get("utilization")) if now is None else now.utilization
        self._put(declared.JOB_UTILIZATION, used)
        objectives = (spec.get("tasks") or {}).get("objectives") or ()
        metric = str(objectives[0].get("metric")) if objectives else ""
        best = (told.get("best") or {}).get("metrics")
        figures = _by(best, "name", "value")
        if now is not None and now.best is not None:
            figures = dict(now.best.metrics)
        if metric in figures:
            self._put(declared.JOB_BEST, figures[metric], metric=metric)

    def _workers(self, status: Mapping[str, Any], report: TaskReport | None) -> None:
        told = status.get("workers") or {}
        desired = _number(told.get("desired"))
        # A pool's are at tasks whatever state the last of their groups is in.
        trains = report is not None and (report.state == "training" or report.tasks is not None)
        training = len(report.members) if report is not None and trains else 0
        standby = len(report.standbys) if report is not None else 0
        missing = max(0.0, (desired or 0.0) - training - standby)
        for state, count in (("training", training), ("standby", standby), ("missing", missing)):
            self._put(declared.JOB_WORKERS, count, state=state)
        self._put(declared.JOB_WORKERS_DESIRED, desired)
        self._put(declared.JOB_WORKERS_MIN, _number(told.get("min")))
        generation = _number(told.get("generation")) if report is None else report.generation
        self._put(declared.JOB_GENERATION, generation)

    def _models(self, status: Mapping[str, Any]) -> None:
        """The compression's table: a model before all steps, and after each."""
        for row in (status.get("compression") or {}).get("rows") or ():
            step = str(row.get("name"))
            self._put(declared.JOB_MODEL_BYTES, _number(row.get("bytes")), step=step)
            self._put(declared.JOB_MODEL_PARAMETERS, _number(row.get("parameters")), step=step)
            self._put(declared.JOB_MODEL_NONZEROS, _number(row.get("nonzeros")), step=step)
            self._put(declared.JOB_MODEL_MACS, _number(row.get("macs")), step=step)
            time = _number(row.get("latencyMilliseconds"))
            self._put(declared.JOB_MODEL_LATENCY, None if time is None else time / 1e3, step=step)
            name, _, figure = str(row.get("metric") or "").rpartition(" ")
            self._put(declared.JOB_MODEL_METRIC, _number(figure), step=step, metric=name)

    def _put(self, family: declared.Family, value: float | None, **label: str) -> None:
        """One sample; what is not known is left out."""
        if value is None:
            return
        extra = f",{labels(label.keys(), label.values())}" if label else ""
        self._out.add(family, self._base + extra, float(value))


def _uid(job: Job) -> str:
    return str((job.get("metadata") or {}).get("uid") or "")


def _sweeps_batch_size(spec: Mapping[str, Any]) -> bool:
    """Whether a step's samples differ between tasks."""
    sweep = (spec.get("tasks") or {}).get("sweep") or {}
    return any(entry.get("field") == "trainer.batchSize" for entry in sweep.get("parameters") or ())


def _number(value: object) -> float | None:
    """Statuses hold ratios and rates as text."""
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _time(value: object) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except ValueError:
        return None


def _by(parts: object, key: str, value: str) -> dict[str, float]:
    """A status's list of named figures as a mapping."""
    found: dict[str, float] = {}
    for part in parts if isinstance(parts, list | tuple) else ():
        figure = _number(part.get(value))
        if figure is not None and math.isfinite(figure):
            found[str(part.get(key))] = figure
    return found
