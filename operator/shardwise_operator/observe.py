"""Raw Kubernetes objects in, frozen records out: all that a decision may know.

The first step of a reconcile. Pure: the clock's time comes in as an argument, and nothing here
calls an API. Objects may be incomplete (the API omits what is empty); reading is forgiving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from shardwise.coordinator.report import TaskReport
from shardwise_operator import identity, names
from shardwise_operator.clamp import read

Raw = Mapping[str, Any]
YEARS = range(1970, 2200)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The OptimizationJob as last seen, its previous status included."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: datetime | None
    deleting: bool
    manifest: Raw
    """As it came, except that its spec is a mapping."""
    status: Raw
    """In the form of the schema and within its bounds, whoever wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One worker pod of the job."""

    name: str
    uid: str
    index: int
    phase: str
    node: str = ""
    deleting: bool = False
    unschedulable: str = ""
    """The scheduler's message while it finds no node."""
    waiting_container: str = ""
    waiting_reason: str = ""
    """Why a container does not start: ImagePullBackOff, CreateContainerConfigError, ..."""
    waiting_message: str = ""
    pod_reason: str = ""
    """The pod's own reason, such as Evicted."""
    pod_message: str = ""
    exit_code: int | None = None
    exit_reason: str = ""
    """What the kubelet says of the exit: OOMKilled, Error, Completed."""
    termination: str = ""
    """The termination message: JSON where the worker wrote it."""
    ended_at: datetime | None = None
    """When its end was first seen; see `clock`. What a node's clock says of it is not read."""
    created_at: datetime | None = None
    turned_away: bool = False
    """It failed before any of its containers started: its node did not take it."""
    rejections: int = 0
    """How many pods of this index in a row nodes have turned away, this one included."""
    init_running: str = ""
    """An init container that still runs, and is no sidecar."""
    gates: tuple[str, ...] = ()
    """Scheduling gates that somebody has to remove."""
    ended_container: str = ""
    """The init container whose end the exit code is of; empty where it is the trainer's."""
    beside: tuple[str, ...] = ()
    """Other containers that ended badly, in words."""
    given: bool = False
    """It was given to a node, whose kubelet has taken no note of it."""
    given_at: datetime | None = None
    """When that was first seen."""
    node_lost: bool = False
    """Its node does not report any more: the pod's state is the last that was known."""
    disrupted: str = ""
    """Why the cluster took it away (its condition DisruptionTarget); empty where it did not."""
    trainer: Mapping[str, Any] | None = None
    """The trainer, the compression and the tasks that the pod was made for."""

    @property
    def succeeded(self) -> bool:
        # The trainer's own end counts: a sidecar may run on, or fail, and tells nothing of it.
        return self.exit_code == 0 if self.exit_code is not None else self.phase == "Succeeded"

    @property
    def failed(self) -> bool:
        return self.exit_code != 0 if self.exit_code is not None else self.phase == "Failed"

    @property
    def ended(self) -> bool:
        return self.succeeded or self.failed

    @property
    def living(self) -> bool:
        """It runs, or may yet run."""
        return not self.ended and not self.deleting

    @property
    def over(self) -> bool:
        """None of its containers runs any more. Sidecars may outlive the trainer."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def running(self) -> bool:
        return self.phase == "Running" and self.living

    @property
    def told(self) -> Mapping[str, Any]:
        """What the worker said of its end; empty where it said nothing."""
        return {} if self.ended_container else parse_object(self.termination) or {}

    @property
    def left(self) -> bool:
        """It was asked to go, and went at a step boundary."""
        return self.succeeded and self.told.get("outcome") == "left"

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The job's result, where this worker is the one that wrote it."""
        result = self.told.get("result") if self.succeeded else None
        good = self.told.get("outcome") == "succeeded" and isinstance(result, dict)
        return result if good else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPod:
    """A pod that is not the job's and has a name that the job's pod of this index would have."""

    name: str
    index: int
    leaves: bool
    """It is on its way out, as are the pods of an earlier job of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMapView:
    """The ConfigMap with the user's code; sha256 is None where there is no such ConfigMap."""

    name: str
    sha256: str | None
    files: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    problem: str = ""
    """Why it could not be read, where it is not that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationError:
    """Something of the job's could not be created at the last try."""

    what: str
    status: int
    reason: str
    """QuotaExceeded, Forbidden, NameTaken, or the API's own word."""
    message: str
    retry_at: datetime
    taken: int | None = None
    """The index whose name somebody else's pod has: another one is taken in its place."""
    blocks: bool = True
    """False where the job goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the coordinator was last asked for about the task."""

    workers: int
    min_workers: int
    draining: bool = False
    lost: frozenset[str] = frozenset()
    """Uids of the pods that it was told are lost."""
    settled: bool = True
    """False while workers that train already may still be on their way to this coordinator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The whole world of one decision."""

    job: JobView
    pods: tuple[PodView, ...]
    now: datetime
    foreign: tuple[ForeignPod, ...] = ()
    """Pods that are not the job's and have names of its pods: of an earlier job, or anybody's."""
    service_exists: bool = False
    service_failed: bool = False
    """Its last creation failed; the job goes on without it."""
    configmap: ConfigMapView | None = None
    """None where the job takes no code from a ConfigMap, or it was not looked up."""
    report: TaskReport | None = None
    """The coordinator's view; None where the task is not open there."""
    asked: Asked | None = None
    """Present where the task is open."""
    end_seen: datetime | None = None
    """When the coordinator was first seen to have ended the task, well or not."""
    idle_since: datetime | None = None
    """Since when no worker of a pool has been at a task; None while one is."""
    short_since: datetime | None = None
    """Since when a pool has had fewer workers than it asks for; None while it has them."""
    source: str | None = None
    """The text of the module that the entrypoint is in; None where it is not known."""
    settled: bool = True
    """False shortly after the operator's start, while running workers may not be back yet."""
    creation_errors: tuple[CreationError, ...] = ()
    server_minor: int = 0
    """The API server's Kubernetes 1.x; 0 where it is not known."""
    pod_words: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the newest warning about a pod that does not start says, by the pod's uid."""
    status_refused: str = ""
    """Why the API server does not take the job's status; empty where it does."""

    @property
    def taken(self) -> frozenset[int]:
        """Indices that no pod can be made for, because the name is somebody else's."""
        refused = (error.taken for error in self.creation_errors if error.taken is not None)
        return frozenset((*(pod.index for pod in self.foreign), *refused))


def job_view(raw: Raw) -> JobView:
    meta = raw.get("metadata") or {}
    generation = meta.get("generation")
    return JobView(
        namespace=str(meta.get("namespace") or ""),
        name=str(meta.get("name") or ""),
        uid=str(meta.get("uid") or ""),
        generation=generation if type(generation) is int and generation > 0 else 0,
        created=parse_time(meta.get("creationTimestamp")),
        deleting=bool(meta.get("deletionTimestamp")),
        manifest=raw if isinstance(raw.get("spec"), Mapping) else {**raw, "spec": {}},
        status=read(raw.get("status")),
    )


def pod_view(raw: Raw) -> PodView | None:
    """The pod as a record, whosever it is; None where it carries no index."""
    meta, status = raw.get("metadata") or {}, raw.get("status") or {}
    index = (meta.get("labels") or {}).get(names.INDEX, "")
    if not (index.isascii() and index.isdigit()):
        return None
    waiting = _waiting(status)
    ended = _terminated(status)
    return PodView(
        name=meta.get("name", ""),
        uid=meta.get("uid", ""),
        index=int(index),
        phase=status.get("phase") or "Pending",
        node=(raw.get("spec") or {}).get("nodeName") or "",
        deleting=bool(meta.get("deletionTimestamp")),
        unschedulable=_unschedulable(status),
        waiting_container=str(waiting.get("container") or ""),
        waiting_reason=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        pod_reason=status.get("reason") or "",
        pod_message=status.get("message") or "",
        exit_code=ended.get("exitCode"),
        exit_reason=ended.get("reason") or "",
        termination=ended.get("message") or "",
        created_at=parse_time(meta.get("creationTimestamp")),
        turned_away=status.get("phase") == "Failed" and not _begun(status),
        init_running=_init_running(raw),
        gates=_gates(raw),
        ended_container=str(ended.get("initContainer") or ""),
        beside=_beside(status),
        given=_given(status),
        node_lost=_node_lost(status),
        disrupted=_disrupted(status),
        trainer=parse_object((meta.get("annotations") or {}).get(names.ACCEPTED_TRAINER)),
    )


def pod_views(raws: Sequence[Raw], uid: str, namespace: str | None = None) -> tuple[PodView, ...]:
    """The pods that the operator made for the job of this uid, by index; a namespace that is given
    must be theirs. What its labels say of anybody else's pod is not believed."""
    mine = (
        pod_view(raw)
        for raw in raws
        if (owner := identity.owner_of(raw)) is not None
        and owner.uid == uid
        and namespace in (None, owner.namespace)
        and identity.worker_index(raw) is not None
    )
    return tuple(sorted((pod for pod in mine if pod), key=lambda pod: (pod.index, pod.name)))


def foreign_pods(raws: Sequence[Raw], job: JobView) -> tuple[ForeignPod, ...]:
    """The pods that are not this job's, but have names that its own would have."""
    found: dict[int, ForeignPod] = {}
    for raw in raws:
        meta = raw.get("metadata") or {}
        index = identity.name_index(meta.get("name"), job.name)
        mine = identity.is_of(raw, job.namespace, job.uid) and identity.worker_index(raw) == index
        if index is None or mine or meta.get("namespace", job.namespace) != job.namespace:
            continue
        leaves = identity.leaves_by_itself(raw, job.name)
        found[index] = ForeignPod(name=str(meta["name"]), index=index, leaves=leaves)
    return tuple(found[index] for index in sorted(found))


def parse_time(text: object) -> datetime | None:
    """A time of this age; what is no time, or beyond what can be counted with, is None."""
    if not text or not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found if found.year in YEARS else None


def parse_object(text: object) -> Mapping[str, Any] | None:
    """A JSON object, or None for anything else, at any depth."""
    if not text or not isinstance(text, str):
        return None
    try:
        value = from_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _containers(status: Raw) -> list[Raw]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _waiting(status: Raw) -> Raw:
    for container in _containers(status):
        waiting = (container.get("state") or {}).get("waiting") or {}
        # These two are said of every pod on its way; they are no trouble.
        if waiting.get("reason") not in (None, "", "ContainerCreating", "PodInitializing"):
            return {**waiting, "container": container.get("name")}
    return {}


def _terminated(status: Raw) -> Raw:
    """How the trainer container ended; a failed init container counts too, before it."""
    for container in status.get("containerStatuses") or ():
        if container.get("name") == names.CONTAINER:
            ended = (container.get("state") or {}).get("terminated")
            if ended:
                return dict(ended)
    if status.get("phase") == "Failed":
        for container in status.get("initContainerStatuses") or ():
            ended = (container.get("state") or {}).get("terminated") or {}
            if ended.get("exitCode"):
                return {**ended, "initContainer": container.get("name")}
    return {}


def _conditions(status: Raw) -> dict[str, Raw]:
    return {str(c.get("type")): c for c in status.get("conditions") or ()}


def _true(condition: Raw) -> bool:
    return condition.get("status") == "True"


def _begun(status: Raw) -> bool:
    """Whether any container has run. Of one that it cannot find, the kubelet invents an exit."""
    for container in _containers(status):
        state = container.get("state") or {}
        ended = state.get("terminated") or {}
        invented = ended.get("reason") == "ContainerStatusUnknown" and not ended.get("startedAt")
        if "running" in state or (ended and not invented):
            return True
    return False


def _beside(status: Raw) -> tuple[str, ...]:
    """Containers of others that ended badly: the trainer may miss them."""
    found = []
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if container.get("name") != names.CONTAINER and ended.get("exitCode"):
            why = ended.get("reason") or "Error"
            found.append(f"{container.get('name')} ({why}, exit code {ended['exitCode']})")
    return tuple(found)


def _init_running(raw: Raw) -> str:
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    sidecars = {
        container.get("name")
        for container in spec.get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    for container in status.get("initContainerStatuses") or ():
        if "running" in (container.get("state") or {}) and (
            container.get("name") not in sidecars or container.get("started") is False
        ):
            return str(container.get("name"))
    return ""


def _gates(raw: Raw) -> tuple[str, ...]:
    gates = (raw.get("spec") or {}).get("schedulingGates") or ()
    return tuple(str(gate.get("name")) for gate in gates)


def _given(status: Raw) -> bool:
    if status.get("phase") not in (None, "Pending") or status.get("startTime"):
        return False
    return _true(_conditions(status).get("PodScheduled") or {})


def _node_lost(status: Raw) -> bool:
    """The node controller marks the pods of a silent node as not ready, though their containers
    were when the kubelet last told."""
    if status.get("reason") == "NodeLost":
        return True
    found = _conditions(status)
    ready, containers = found.get("Ready") or {}, found.get("ContainersReady") or {}
    return (
        status.get("phase") == "Running"
        and ready.get("status") in ("False", "Unknown")
        and ready.get("reason") != "ReadinessGatesNotReady"
        and containers.get("status") == "True"
    )


def _disrupted(status: Raw) -> str:
    found = _conditions(status).get("DisruptionTarget") or {}
    if not _true(found):
        return ""
    return str(found.get("reason") or "DisruptionTarget")


def _unschedulable(status: Raw) -> str:
    for condition in status.get("conditions") or ():
        if (
            condition.get("type") == "PodScheduled"
            and condition.get("status") == "False"
            and condition.get("reason") == "Unschedulable"
        ):
            return condition.get("message") or "no node fits"
    return ""
