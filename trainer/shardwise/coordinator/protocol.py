"""The messages between workers and coordinator, and their form on the wire.

One message is one line of JSON: `{"type": "ack", "generation": 3, ...}`, keys in camelCase, at
most 1 MiB. Both sides read and write through this module only. `decode` checks every field, so
whoever holds a message may rely on its types; keys that it does not know are passed over, so that
a newer side may say more. Numbers of steps, generations and indices are never negative.

No I/O happens here, and nothing beyond the standard library is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, cast, get_args

from shardwise.coordinator.codec import ProtocolError, from_json, json_type, to_json
from shardwise.coordinator.report import Assignment

__all__ = [
    "MAX_LINE",
    "PROTOCOL",
    "Ack",
    "Bye",
    "Failed",
    "Fault",
    "Finished",
    "FromCoordinator",
    "FromWorker",
    "Generation",
    "Go",
    "Hello",
    "KeyValue",
    "Member",
    "Message",
    "Phase",
    "ProtocolError",
    "Refusal",
    "Refused",
    "StepReport",
    "Stop",
    "Welcome",
    "decode",
    "encode",
]

PROTOCOL = 1
MAX_LINE = 1 << 20
"""Longest line in bytes, its newline included."""

Phase = Literal["idle", "forming", "training", "finished"]
Scalar: TypeAlias = str | int | float


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


# From a worker to the coordinator.


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of a connection, and of every later one of the same worker."""

    type: ClassVar[str] = "hello"
    token: str
    worker: str
    index: int
    fingerprint: Mapping[str, Scalar]
    """What must be equal in all members for equal bits: torch version, CPU capability, ..."""
    generation: int = 0
    """The generation the worker is in, 0 for none."""
    phase: Phase = "idle"
    step: int = 0
    protocol: int = PROTOCOL

    def __repr__(self) -> str:
        # The token must never reach a log.
        return f"Hello({self.worker}, {self.index}, {self.generation}, {self.phase}, {self.step})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The worker has left its old group, and stands at `step` with the state of this digest."""

    type: ClassVar[str] = "ack"
    generation: int
    step: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """One entry of a generation's rendezvous store; goes both ways."""

    type: ClassVar[str] = "kv"
    generation: int
    key: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The worker's exchange with a peer broke; it waits for a new generation."""

    type: ClassVar[str] = "fault"
    generation: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Rank 0's progress. `samples_per_second` is the rate since the report before."""

    type: ClassVar[str] = "progress"
    generation: int
    step: int
    total_steps: int
    epoch: int
    loss: float
    samples_per_second: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Training is over for this worker; rank 0 gives the result, the others None."""

    type: ClassVar[str] = "finished"
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The worker cannot go on, by no fault of its peers; the task ends with this reason."""

    type: ClassVar[str] = "failed"
    reason: str
    message: str
    detail: str = ""


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
    """Leave the old group and ack: a new one is to form of these members."""

    type: ClassVar[str] = "generation"
    generation: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """All members have acked: connect to each other. `steps[rank]` is where each member stands."""

    type: ClassVar[str] = "go"
    generation: int
    members: tuple[Member, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The task is over without this worker's doing: end, and do not come back."""

    type: ClassVar[str] = "stop"
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """`finished` or `failed` has been taken in: closing is fine now."""

    type: ClassVar[str] = "bye"


FromWorker: TypeAlias = Hello | Ack | KeyValue | Fault | StepReport | Finished | Failed
FromCoordinator: TypeAlias = Welcome | Refusal | Generation | Go | KeyValue | Stop | Bye
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
