"""How a worker ends: one outcome, told to the coordinator, the pod's status and the shell.

The termination message makes the end of a job readable from its pods alone, so an operator that
was away when it happened misses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwise.api import conditions, exitcodes
from shardwise.api.environment import TERMINATION_LOG, TERMINATION_MESSAGE_BYTES

_EXIT_CODES = {
    conditions.USER_CODE_FAILED: exitcodes.USER_CODE,
    conditions.NOT_FINITE: exitcodes.USER_CODE,
    conditions.WORKER_LOST: exitcodes.GROUP_LOST,
    conditions.REFUSED_WORKER: exitcodes.REFUSED,
    conditions.OUTPUT_FAILED: exitcodes.OUTPUT,
    conditions.CHECKPOINT_FAILED: exitcodes.OUTPUT,
}


@dataclass(frozen=True, kw_only=True)
class Success:
    """The task is done; rank 0 has the result."""

    result: Mapping[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        return exitcodes.OK

    def message(self) -> dict[str, Any]:
        return {"outcome": "succeeded", "result": self.result}


@dataclass(frozen=True, kw_only=True)
class Left:
    """This worker was asked to go, and has gone at a step boundary. The task goes on without it."""

    message_line: str = ""

    @property
    def exit_code(self) -> int:
        return exitcodes.OK

    def message(self) -> dict[str, Any]:
        return {"outcome": "left", "message": self.message_line}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The task cannot go on here."""

    reason: str
    message_line: str
    detail: str = ""
    exit_code: int = exitcodes.GROUP_LOST

    @classmethod
    def of(cls, reason: str, message: str, detail: str = "") -> Failure:
        """A failure for one of the conditions' reasons, with the exit code that belongs to it."""
        code = _EXIT_CODES.get(reason, exitcodes.GROUP_LOST)
        return cls(reason=reason, message_line=message, detail=detail, exit_code=code)

    def message(self) -> dict[str, Any]:
        return {
            "outcome": "failed",
            "reason": self.reason,
            "message": self.message_line,
            "detail": self.detail,
        }


Outcome = Success | Left | Failure


def write_termination_message(outcome: Outcome, path: Path | None) -> None:
    """Write the outcome where Kubernetes picks it up, cut to what it keeps."""
    if path is None:
        return
    body = outcome.message()
    text = json.dumps(body)
    while len(text.encode()) > TERMINATION_MESSAGE_BYTES and body.get("detail"):
        body["detail"] = body["detail"][len(body["detail"]) // 2 + 1 :]  # its end tells most
        text = json.dumps(body)
    if len(text.encode()) > TERMINATION_MESSAGE_BYTES and "message" in body:
        body["message"] = body["message"][:1000] + " ..."
        text = json.dumps(body)
    if body.get("result"):
        text = _shortened(body)
    path.write_text(text)


def _shortened(body: dict[str, Any]) -> str:
    """A result that Kubernetes keeps whole: first the table goes, then what can be found again in
    result.json."""
    found: dict[str, Any] = json.loads(json.dumps(body))
    result = found["result"]
    table, metrics = result.get("compression") or {}, result.get("metrics") or []
    rows = table.get("rows") or []

    def long() -> bool:
        return len(json.dumps(found).encode()) > TERMINATION_MESSAGE_BYTES

    if long():
        for row in rows:
            row.pop("note", None)
    while long() and len(rows) > 2:
        del rows[1]  # before and after tell most
    if long():
        result.pop("compression", None)
    if long():
        for artifact in result.get("artifacts") or ():
            artifact.pop("path", None)
    if long():
        result.pop("best", None)
    while long() and metrics:
        metrics.pop()
    return json.dumps(found)


def out_of_memory(environ: Mapping[str, str]) -> Callable[[], None]:
    """What the first process does once the kernel has killed the worker for memory."""
    path = environ.get(TERMINATION_LOG)

    def write() -> None:
        line = "the kernel killed the worker: its container used more memory than its limit"
        failure = Failure(reason="OOMKilled", message_line=line, exit_code=137)
        write_termination_message(failure, Path(path) if path else None)

    return write
