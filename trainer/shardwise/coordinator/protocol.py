"""The messages between workers and coordinator, and their form on the wire.

One message is one line of JSON: `{"type": "ack", "generation": 3, ...}`, keys in camelCase, at
most 1 MiB, and 512 KiB from a worker. Both sides read and write through this module only. `decode`
checks every field, so whoever holds a message may rely on its types and on the bounds of its
annotations; keys that it does not know are passed over, so that a newer side may say more. Numbers
of steps, generations and indices are never negative. A hello begins with its type and its token:
the coordinator reads no further before it knows whose token that is.

No I/O happens here, and nothing beyond the standard library is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast, get_args

from shardwise.coordinator.codec import (
    AtMost,
    Between,
    Cut,
    Plain,
    ProtocolError,
    from_json,
    json_type,
    to_json,
)
from shardwise.coordinator.report import Assignment

__all__ = [
    "MAX_LINE",
    "MAX_WORKER_LINE",
    "PROTECTIONS",
    "PROTOCOL",
    "Ack",
    "Activity",
    "Bye",
    "CheckpointReport",
    "Ended",
    "Failed",
    "Fault",
    "Finished",
    "FromCoordinator",
    "FromWorker",
    "Generation",
    "Go",
    "Hello",
    "KeyValue",
    "Leave",
    "Member",
    "Message",
    "Phase",
    "Probe",
    "Protection",
    "ProtocolError",
    "Pulse",
    "Ready",
    "Refusal",
    "Refused",
    "StepReport",
    "Stop",
    "Suspect",
    "Welcome",
    "decode",
    "encode",
]

PROTOCOL = 3
MAX_LINE = 1 << 20
"""Longest line in bytes, its newline included."""
MAX_WORKER_LINE = 512 << 10
"""Longest line that the coordinator reads: a worker that sends a longer one is refused."""

Phase = Literal["loading", "ready", "forming", "training", "finishing"]
"""Where a worker stands.

loading: it builds its task. ready: loaded, in no group yet. forming: it has left a group, or acked
a generation, and waits. training: in the group of its generation. finishing: past the last step,
and its `finished` is sent or soon will be.
"""
Activity = Literal["loading", "waiting", "computing", "exchanging", "finishing"]
"""What a worker's main thread was doing at its last beat."""
Protection = Literal["authenticated", "sealed", "encrypted"]
"""How the members' connections are protected.

authenticated: both ends have proven that they are of the generation before a byte is believed.
sealed: so is every byte that follows. encrypted: and nobody else can read it.
"""
PROTECTIONS: tuple[Protection, ...] = get_args(Protection)

# Bounds of what a worker says. They are far above what ours do: the longest name in Kubernetes has
# 253 characters, a step of a microsecond takes 2**40 of them twelve days.
Name: TypeAlias = Annotated[str, AtMost(253)]
Key: TypeAlias = Annotated[str, AtMost(512)]
Line: TypeAlias = Annotated[str, Cut(2048)]
Step: TypeAlias = Annotated[int, AtMost(2**40)]
Index: TypeAlias = Annotated[int, AtMost(2**31 - 1)]
Seconds: TypeAlias = Annotated[float, Between(0.0, 1e9)]
Figures: TypeAlias = Annotated[Mapping[str, float], Cut(64)]
Spent: TypeAlias = Annotated[Mapping[str, Seconds], Cut(16)]
Result: TypeAlias = Annotated[Mapping[str, Any], Plain(depth=8, values=20_000, text=4096)]
Scalar: TypeAlias = Annotated[str, AtMost(1024)] | int | float
Fingerprint: TypeAlias = Annotated[Mapping[str, Scalar], AtMost(64)]


class Refused(Exception):  # noqa: N818 - the name that callers raise it by
    """A worker is not let in.

    Args:
        reason: a CamelCase word, for programs.
        message: one line for people: what was wrong, and what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A worker's place in a generation; members are ranked by index."""

    worker: str
    index: int
    step: int | None = None
    """The step it is known to be at; None where nothing is known of it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The result of one task of a pool, told again."""

    task: Key
    result: Result


# From a worker to the coordinator.


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of a connection, and of every later one of the same worker.

    It stands for everything that was under way on the worker's former connection. A worker in
    phase `finishing` sends its `finished` again after it, one that was leaving its `leave`.
    """

    type: ClassVar[str] = "hello"
    token: str
    worker: Name
    index: Index
    fingerprint: Fingerprint
    """What must be equal in all members for equal bits: torch version, CPU capability, ...

    Past phase `loading` all of what `ready` says.
    """
    generation: Step = 0
    """The generation the worker is in, or has acked last; 0 for none."""
    phase: Phase = "loading"
    step: Step = 0
    members: Annotated[tuple[Name, ...], AtMost(8192)] = ()
    """The workers of `generation`, by rank."""
    task: Key = ""
    """The task that it was welcomed with; empty before its first welcome. In a pool it tells
    which of the tasks this worker is at; otherwise the token does."""
    finished: Annotated[tuple[Ended, ...], AtMost(64)] = ()
    """In a pool: the last results that this worker has told of, for a coordinator that is new."""
    last_end: Name = ""
    """How this worker's former process ended, where that is known: OOMKilled."""
    protocol: int = PROTOCOL

    def __repr__(self) -> str:
        # The token must never reach a log.
        return f"Hello({self.worker}, {self.index}, {self.generation}, {self.phase}, {self.step})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The task is loaded: from now on the worker may be put in a generation.

    The fingerprint is hello's and what loading has shown: threads, the number of parameters, a
    hash of shard 0's gradient at step 0.
    """

    type: ClassVar[str] = "ready"
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The worker has left its old group, and stands at `step` with the state of this digest.

    One that is no member of a soft generation acks it at the boundary too: it has left. A worker
    that restored a checkpoint before acking is at that checkpoint's step. An empty digest is
    compared with nothing.
    """

    type: ClassVar[str] = "ack"
    generation: Step
    step: Step
    digest: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """One entry of a generation's rendezvous store; goes both ways."""

    type: ClassVar[str] = "kv"
    generation: Step
    key: Key
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The worker's exchange with a peer broke; it waits for a new generation."""

    type: ClassVar[str] = "fault"
    generation: Step
    message: Line
    peer: Name | None = None
    """The worker that it could not reach or was cut off from, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """The worker waits in the exchange of `step` for longer than it usually does."""

    type: ClassVar[str] = "suspect"
    generation: Step
    step: Step
    waited_seconds: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The answer to a probe, by the thread that reads this connection: how the main thread is."""

    type: ClassVar[str] = "pulse"
    nonce: int
    generation: Step
    step: Step
    phase: Phase
    activity: Activity
    age_seconds: Seconds
    """Since the main thread last said what it does."""
    usual_seconds: Seconds
    """The longest ordinary time between two such beats so far; 0: not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The worker was asked to go (SIGTERM), and wants out at the next step boundary."""

    type: ClassVar[str] = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Rank 0's progress. `samples_per_second` is the rate since the report before."""

    type: ClassVar[str] = "progress"
    generation: Step
    step: Step
    total_steps: Step
    epoch: Step
    loss: float
    samples_per_second: Annotated[float, Between(0.0, 1e12)]
    metrics: Figures
    seconds: Spent
    """Wall seconds since the report before by kind: productive, rendezvous, recovery, checkpoint,
    retried, waiting."""
    stage: Line = ""
    """What is under way besides training; empty while it trains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReport:
    """A checkpoint of this step was committed, or failed where `error` says why."""

    type: ClassVar[str] = "checkpoint"
    step: Step
    bytes: int
    seconds: Seconds
    error: Line = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Training is over for this worker; rank 0 gives the result, the others None and wait."""

    type: ClassVar[str] = "finished"
    result: Result | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The worker cannot go on, by no fault of its peers; the task ends with this reason."""

    type: ClassVar[str] = "failed"
    reason: Name
    message: Line
    detail: Annotated[str, Cut(16_384, tail=True)] = ""


# From the coordinator to a worker.


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The answer to an accepted hello."""

    type: ClassVar[str] = "welcome"
    assignment: Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The answer to a hello that is not accepted; the connection is closed after it."""

    type: ClassVar[str] = "refused"
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A new group is to form of these members: leave the old one, and ack.

    Soft: go on until the step boundary at which the flag in the summed vector says that all
    switch. Not soft: abort the old group now. Who is in no running group acks at once either way.
    Who is not in `members` leaves, and ends well; with no members at all everybody leaves, and
    what they hold is written as a checkpoint first.

    The steps of `members` are what is known of them; where all are 0 nobody holds any training's
    state, and a member restores the newest checkpoint, if there is one, before it acks.
    """

    type: ClassVar[str] = "generation"
    generation: int
    members: tuple[Member, ...]
    soft: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """All members have acked: connect to each other. `steps[rank]` is where each member stands.

    Laggards copy from the first rank that stands highest.
    """

    type: ClassVar[str] = "go"
    generation: int
    members: tuple[Member, ...]
    steps: tuple[int, ...]
    secret: bytes = field(default=b"", repr=False)
    """What only the members of this generation know, and prove to each other. It must never reach
    a log."""
    protection: Protection = "authenticated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How is the main thread? Sent on suspicion only, and answered at once with a pulse."""

    type: ClassVar[str] = "probe"
    nonce: int


HUNG = "Hung"
"""The reason of a stop for a worker whose training thread stands still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The task is over without this worker's doing: end, and do not come back."""

    type: ClassVar[str] = "stop"
    reason: str
    message: str
    again: bool = False
    """Come back as a new process: this one hangs, or in a pool there may be other tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """The worker may end well: the task has finished, its failure was taken in, or it is not
    needed (its `leave` where it is in no group)."""

    type: ClassVar[str] = "bye"


FromWorker: TypeAlias = (
    Hello
    | Ready
    | Ack
    | KeyValue
    | Fault
    | Suspect
    | Pulse
    | Leave
    | StepReport
    | CheckpointReport
    | Finished
    | Failed
)
FromCoordinator: TypeAlias = Welcome | Refusal | Generation | Go | KeyValue | Probe | Stop | Bye
Message: TypeAlias = FromWorker | FromCoordinator

_KINDS: dict[str, Any] = {kind.type: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """The message as one line, newline included.

    Raises:
        ProtocolError: the line would be longer than MAX_LINE.
    """
    line = json.dumps({"type": message.type, **to_json(message)}, separators=(",", ":")).encode()
    if len(line) >= MAX_LINE:
        raise ProtocolError(
            f"a {message.type} message of {len(line)} bytes is longer than {MAX_LINE - 1}"
        )
    return line + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line, with or without its newline.

    Raises:
        ProtocolError: what is wrong with it, and in which field.
    """
    if len(line) > MAX_LINE:
        raise ProtocolError(f"a line of {len(line)} bytes is longer than {MAX_LINE}")
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a line of JSON: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError(f"a message is a JSON object, not {json_type(body)}")
    kind = body.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ProtocolError(f"unknown message type {str(kind)[:40]!r}")
    return cast(Message, from_json(_KINDS[kind], body, kind))
