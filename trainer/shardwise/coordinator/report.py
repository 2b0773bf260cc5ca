"""What goes into the coordinator for a task, and what it tells of one.

Plain records, shared by the coordinator, the operator and local mode. They hold no behaviour, and
nothing here knows of sockets, of Kubernetes or of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TaskState = Literal["waiting", "forming", "training", "finished", "failed"]

SUSPICION_PART = 0.4
"""Of the detection time."""

Cause = Literal["Killed", "Hung", "Unreachable", "Broken", "Preempted", "Joined", "Resized"]
"""Why a group changed.

Killed: a member's connection ended. Hung: its main thread stands still. Unreachable: it does not
answer. Broken: an exchange broke and all members live. Preempted: it asked to leave. Joined: a
worker came in. Resized: a worker went because fewer are wanted.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What a worker of a pool is to do of one task, and where its files go."""

    pool: str
    """The pool's key; results of another pool in the same folder are not taken for its own."""
    name: str
    """The task's name; its files go into `tasks/<name>` of the output folder."""
    number: int
    """Its place in the order of all stretches; a stretch's result is told once."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What the task differs in, for its row in the table."""
    until: int | None = None
    """Epochs or steps, as spec.trainer has it, to train to; None: to the end."""
    state: str = ""
    """Where in the output folder the state of its training is kept from one stretch to the next,
    or for all tasks that train the same; empty: nowhere."""
    objectives: tuple[str, ...] = ()
    """The figures that its result must have."""
    collect: Collect | None = None
    """Instead of training: gather what the tasks left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """The last work of a pool: one table of all tasks, and the best one's weights."""

    best: str = ""
    """The name of the best task; empty where none is."""
    pareto: tuple[str, ...] = ()
    """Names of the tasks that no other is better than in all objectives."""
    objectives: tuple[Mapping[str, Any], ...] = ()
    """`spec.tasks.objectives`: a table can be ranked only by who knows them."""
    rows: str = ""
    """The tasks as `rows.pack` has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAssignment:
    """Many tasks for the workers of one job."""

    pool: str
    """The pool's key in the coordinator: the job's UID in a cluster."""
    name: str
    """The job's name."""
    workers: int
    """How many workers the pool is to have."""
    trainer: Mapping[str, Any]
    """`spec.trainer` as the manifest has it: what the tasks share."""
    tasks: Mapping[str, Any]
    """`spec.tasks` as the manifest has it."""
    compression: Mapping[str, Any] | None = None
    output: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None
    report_seconds: float = 5.0
    detection_seconds: float | None = None
    gather_seconds: float = 5.0
    """How long a group waits for its missing workers after a loss, before fewer go on."""
    began: bool = False
    """Earlier coordinators have had it: its workers may be at tasks."""
    record: str = ""
    """Results that earlier coordinators have written down."""
    recoveries: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    lost_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task for one group of workers; what every worker is welcomed with."""

    task: str
    """The task's key in the coordinator; namespace/name in a cluster."""
    name: str
    """The job's name: the output goes into a folder of this name."""
    workers: int
    """The most members that the group may have; further ready workers stand by."""
    trainer: Mapping[str, Any]
    """`spec.trainer` as the manifest has it (camelCase keys)."""
    output: Mapping[str, Any] | None = None
    """`spec.output`, for what a worker may want to know of it."""
    generation_floor: int = 0
    """Generations are numbered above this: the high-water mark of an earlier coordinator."""
    report_seconds: float = 5.0
    """How often rank 0 sends its progress."""
    min_workers: int = 1
    """The fewest members that train; below, the task waits."""
    detection_seconds: float | None = None
    """How long it may take to notice a worker that hangs or is cut off: SUSPICION_PART of it until
    its peers suspect it, the rest for its answer. None: as the coordinator has it for all tasks."""
    gather_seconds: float = 5.0
    """How long the set of connected workers must be unchanged before fewer than `workers` start."""
    checkpoint: Mapping[str, Any] | None = None
    """`spec.checkpoint` as the manifest has it; None: no checkpoints."""
    compression: Mapping[str, Any] | None = None
    """`spec.compression` as the manifest has it; None: none."""
    recoveries: Mapping[str, int] = field(default_factory=dict)
    """What earlier coordinators counted, by cause; this one counts on from it."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What earlier coordinators summed up, by kind; this one adds to it."""
    lost_steps: int = 0
    """What earlier coordinators counted; this one adds to it."""
    reached_step: int = 0
    """The highest step an earlier coordinator heard of; what the group begins below it is lost."""
    stretch: Stretch | None = None
    """Which task of a pool this is; None where the job is one task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a task is, with the rate and remaining time that the last few reports agree on."""

    step: int
    """May go back: after the loss of all workers, training resumes from a checkpoint."""
    total_steps: int
    epoch: int
    loss: float
    """May be NaN or infinite: a diverged training is reported as it is."""
    samples_per_second: float
    eta_seconds: float | None
    """None until enough steps were seen to tell."""
    at: float
    """When the last report came, in the coordinator's clock: Unix seconds."""
    metrics: Mapping[str, float]
    """The last evaluation's metrics; empty before the first."""
    stage: str = ""
    """What is under way besides training; empty while it trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a task ended without a result."""

    reason: str
    """A CamelCase word for a condition's reason: UserCodeFailed, WorkerLost, RefusedWorker, ..."""
    message: str
    """One line: what happened, and what to do."""
    detail: str = ""
    """More of it, e.g. the last lines of a traceback."""
    worker: str | None = None
    """The worker that it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A member that was lost while the group needed it."""

    worker: str
    index: int
    cause: Cause
    at: float
    """When it was noticed, in the coordinator's clock: Unix seconds."""
    step: int
    """The highest step known at that time."""
    seconds: float | None = None
    """From noticing it to the next go; None while there was none yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointState:
    """The newest checkpoint that was committed, and whether one has failed since."""

    step: int
    """0: none was committed yet."""
    at: float
    """When it was reported, in the coordinator's clock: Unix seconds."""
    bytes: int
    seconds: float
    """How long it took, from the copy in memory to its commit."""
    error: str = ""
    """Why the last attempt failed; empty: it did not."""


RowState = Literal["Pending", "Running", "Succeeded", "Failed", "Stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task of a pool."""

    name: str
    state: RowState
    """Stopped: early, since others were better."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Those of its last evaluation, and the compression's figures."""
    weights_sha256: str = ""
    step: int = 0
    total_steps: int = 0
    workers: int = 0
    """How many are at it now, or ended it."""
    ended: int = 0
    """Its place in the order in which tasks ended, from 1; 0: it has not."""
    seconds: float = 0.0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksReport:
    """The tasks of a pool, in counts and in a few rows."""

    total: int
    pending: int
    running: int
    succeeded: int
    failed: int
    stopped: int
    rows: tuple[TaskRow, ...] = ()
    """Those that run, then those that failed last, then those that ended last; a bounded number,
    with room for some that ended."""
    best: TaskRow | None = None
    pareto: tuple[TaskRow, ...] = ()
    """The front, where there are several objectives; a bounded number."""
    record: str = ""
    """What another coordinator needs to go on from here."""
    utilization: float = 0.0
    """The part of its workers' time, from 0 to 1, in which they were at tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """A task as the coordinator sees it now."""

    state: TaskState
    generation: int
    """The highest generation so far: the floor for a coordinator started after this one."""
    connected: tuple[str, ...]
    """Workers with a live connection, by index."""
    workers: int
    progress: Progress | None
    failure: Failure | None
    result: Mapping[str, Any] | None
    members: tuple[str, ...] = ()
    """The group's workers by rank: those that train, or that the next generation is for."""
    standbys: tuple[str, ...] = ()
    """Loaded workers that are no members, by index."""
    waiting: str = ""
    """Why the group does not train, in words with numbers; empty while it does."""
    recoveries: Mapping[str, int] = field(default_factory=dict)
    """How often the group changed, by `Cause`; for members lost, left and joined one by one."""
    losses: tuple[Loss, ...] = ()
    """The last 16, oldest first."""
    recovery_seconds: float | None = None
    """How long the last recovery took, from noticing the trouble to the go."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds of the training by kind, as rank 0 tells them: productive, recovery, ..."""
    checkpoint: CheckpointState | None = None
    lost_steps: int = 0
    """Steps that had to be done again since no worker held their state any more."""
    tasks: TasksReport | None = None
    """The tasks, where this is a pool of them."""
