"""Every metric of Shardwise, declared once: its name, kind, labels and what it tells.

The operator's and the workers' exporters are made from this, and so are docs/metrics.md and the
checks of the dashboards and alerts. Needs nothing but Python; holds no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, get_args

from shardwise.api.status import State
from shardwise.api.status_tasks import TaskState

Kind = Literal["gauge", "counter", "histogram"]
Source = Literal["operator", "worker"]

JOB: Final = ("namespace", "job_name")
"""Not `job`: that is the name of Prometheus's own label for what it scrapes."""
WORKER: Final = (*JOB, "worker")
"""`worker` is the worker's index, which its pod's name ends with."""

# The values of labels, all of them known beforehand.
STATES: Final[tuple[str, ...]] = get_args(State)
TASK_STATES: Final[tuple[str, ...]] = get_args(TaskState)
SECONDS_KINDS: Final = (
    "productive",
    "rendezvous",
    "recovery",
    "checkpoint",
    "retried",
    "waiting",
)
RECOVERY_CAUSES: Final = ("Killed", "Hung", "Unreachable", "Broken", "Preempted")
RESIZE_CAUSES: Final = ("Joined", "Resized")
WORKER_STATES: Final = ("training", "standby", "missing")
PHASES: Final = ("loading", "ready", "forming", "training", "finishing")
STEP_KINDS: Final = ("computing", "exchanging", "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric."""

    name: str
    """As it is exposed: with the unit, and a counter's `_total`."""
    kind: Kind
    source: Source
    help: str
    """One line of plain text."""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without infinity."""
    values: tuple[str, ...] = ()
    """What the last label may be, where that is a closed list."""

    @property
    def series(self) -> tuple[str, ...]:
        """The names that an expression may use."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


def _declare(
    source: Source,
    prefix: str,
    base: tuple[str, ...],
    kind: Kind,
    name: str,
    text: str,
    *labels: str,
    values: tuple[str, ...] = (),
    buckets: tuple[float, ...] = (),
) -> Family:
    return Family(
        name=prefix + name,
        kind=kind,
        source=source,
        help=text,
        labels=(*base, *labels),
        values=values,
        buckets=buckets,
    )


_operator = partial(_declare, "operator", "shardwise_", ())
_job = partial(_declare, "operator", "shardwise_job_", JOB)
_worker = partial(_declare, "worker", "shardwise_worker_", WORKER)

# The operator itself.
BUILD_INFO = _operator("gauge", "build_info", "Always 1; the operator's version.", "version")
LEADER = _operator("gauge", "leader", "1 where this process leads, 0 where it stands by.")
JOBS = _operator(
    "gauge",
    "jobs",
    "Jobs by state, in every namespace that has any.",
    "namespace",
    "state",
    values=STATES,
)
RECONCILE_SECONDS = _operator(
    "histogram",
    "reconcile_duration_seconds",
    "Time of one reconcile of one job.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)
RECONCILE_ERRORS = _operator(
    "counter", "reconcile_errors_total", "Reconciles that failed and are tried again."
)
QUEUE_DEPTH = _operator("gauge", "queue_depth", "Jobs that wait to be reconciled now.")
QUEUE_AGE = _operator(
    "gauge", "queue_oldest_age_seconds", "How long the longest waiting of them has waited."
)
WATCH_AGE = _operator(
    "gauge", "watch_age_seconds", "Time since the API server was last heard of on the pod watch."
)
LOOP_LAG = _operator(
    "gauge", "loop_lag_seconds", "Longest delay of the event loop in the last minute."
)
API_REQUESTS = _operator(
    "counter",
    "api_requests_total",
    "Calls of the Kubernetes API by verb and status code; code 0 means no answer.",
    "verb",
    "code",
)
STATUS_WRITES = _operator(
    "counter",
    "status_writes_total",
    "Status writes: sent, coalesced (put off), or unchanged (not needed).",
    "outcome",
)
EVENTS = _operator(
    "counter",
    "events_total",
    "Kubernetes Events: sent, repeated (counted up), or dropped.",
    "outcome",
)

# One job. These series vanish with the job.
JOB_STATE = _job("gauge", "state", "1 for the state that the job is in.", "state", values=STATES)
JOB_CREATED = _job("gauge", "created_timestamp_seconds", "When the job was created, Unix time.")
JOB_PROGRESS = _job("gauge", "progress_ratio", "Part of the steps that is done, from 0 to 1.")
JOB_STEP = _job("gauge", "step", "Steps that are done.")
JOB_TARGET = _job("gauge", "target_steps", "Steps that the job has.")
JOB_LAST_STEP = _job(
    "gauge", "last_step_timestamp_seconds", "When the step was last seen to grow, Unix time."
)
JOB_STEP_SECONDS = _job("gauge", "step_seconds", "Usual time of one step, at the current rate.")
JOB_LOSS = _job("gauge", "loss", "Loss of the last reported step.")
JOB_SAMPLES = _job(
    "counter",
    "samples_total",
    "Samples trained on: the steps times the batch size.",
)
JOB_SAMPLE_RATE = _job(
    "gauge", "samples_per_second", "Samples per second of the whole group, a median of reports."
)
JOB_ETA = _job(
    "gauge", "eta_seconds", "Time that the rest takes at the current rate; absent while unknown."
)
JOB_FIRST_STEP = _job(
    "gauge",
    "time_to_first_step_seconds",
    "From the creation of the job to its first step; absent where the operator was away then.",
)
JOB_WORKERS = _job(
    "gauge",
    "workers",
    "Workers that train, that stand by, and that are missing of those asked for.",
    "state",
    values=WORKER_STATES,
)
JOB_WORKERS_DESIRED = _job("gauge", "workers_desired", "Workers that the job asks for.")
JOB_WORKERS_MIN = _job("gauge", "workers_min", "The fewest workers that the job goes on with.")
JOB_GENERATION = _job("gauge", "generation", "The number of the group's membership; only grows.")
JOB_RECOVERIES = _job(
    "counter",
    "recoveries_total",
    "Workers lost while the training went on without them, by cause.",
    "cause",
    values=RECOVERY_CAUSES,
)
JOB_RESIZES = _job(
    "counter",
    "resizes_total",
    "Changes of the group that lost nothing: a worker joined, or the job was scaled.",
    "cause",
    values=RESIZE_CAUSES,
)
JOB_RECOVERY_SECONDS = _job(
    "histogram",
    "recovery_seconds",
    "Time from noticing that a worker is lost to training on; from the first recovery on.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
)
JOB_RESTARTS = _job("counter", "restarts_total", "Workers that failed and were replaced.")
JOB_LOST_STEPS = _job(
    "counter", "lost_steps_total", "Steps done again because all workers were lost at once."
)
JOB_SECONDS = _job(
    "counter",
    "seconds_total",
    "Where the training's time went: goodput is productive divided by the sum.",
    "kind",
    values=SECONDS_KINDS,
)
JOB_CHECKPOINT_STEP = _job(
    "gauge", "checkpoint_step", "Step of the newest checkpoint; 0 before the first."
)
JOB_CHECKPOINT_TIME = _job(
    "gauge", "checkpoint_timestamp_seconds", "When the newest checkpoint was complete, Unix time."
)
JOB_CHECKPOINT_BYTES = _job("gauge", "checkpoint_bytes", "Size of the newest checkpoint.")
JOB_CHECKPOINT_SECONDS = _job(
    "gauge", "checkpoint_write_seconds", "Time that writing the newest checkpoint took."
)
JOB_CHECKPOINT_FAILED = _job(
    "gauge", "checkpoint_failed", "1 where the last attempt to write a checkpoint failed."
)
JOB_CHECKPOINT_INTERVAL = _job(
    "gauge",
    "checkpoint_interval_seconds",
    "Time between two checkpoints as the job asks for it, at the usual time of a step.",
)
JOB_MODEL_BYTES = _job(
    "gauge",
    "model_bytes",
    "Size of the packed model after a step of the compression; step trained is before the first.",
    "step",
)
JOB_MODEL_PARAMETERS = _job("gauge", "model_parameters", "Parameters of that model.", "step")
JOB_MODEL_NONZEROS = _job(
    "gauge", "model_nonzero_parameters", "Those of them that are not zero.", "step"
)
JOB_MODEL_MACS = _job("gauge", "model_macs", "Multiply-accumulates for one sample.", "step")
JOB_MODEL_LATENCY = _job(
    "gauge",
    "model_latency_seconds",
    "Median time of a forward pass of 64 samples in ONNX Runtime.",
    "step",
)
JOB_MODEL_METRIC = _job(
    "gauge", "model_metric", "What the guard watches, or the accuracy.", "step", "metric"
)

# One job with many tasks; absent where the job is one.
JOB_TASKS = _job("gauge", "tasks", "Tasks of the job by state.", "state", values=TASK_STATES)
JOB_BEST = _job("gauge", "best_objective", "First objective of the best task so far.", "metric")
JOB_UTILIZATION = _job(
    "gauge",
    "pool_utilization_ratio",
    "Part of the workers' time that went into tasks, from 0 to 1.",
)

# One worker, told by its own pod.
WORKER_RANK = _worker("gauge", "rank", "The worker's rank in its group; -1 outside of one.")
WORKER_STEP = _worker("gauge", "step", "Steps that this worker has done.")
WORKER_PHASE = _worker(
    "gauge", "phase", "1 for the phase that the worker is in.", "phase", values=PHASES
)
WORKER_STEP_SECONDS = _worker(
    "histogram",
    "step_seconds",
    "Time of one step of this worker.",
    buckets=(
        *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
        *(1, 2.5, 5, 10, 30, 60, 300),
    ),
)
WORKER_SECONDS = _worker(
    "counter",
    "seconds_total",
    "Where the time of the steps went: computing, exchanging with the others, waiting for data.",
    "kind",
    values=STEP_KINDS,
)

FAMILIES: Final = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All of the above, in the order of their declaration."""

PROCESS_SERIES: Final = (
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
)
"""What prometheus-client tells of the operator's and the workers' processes."""
