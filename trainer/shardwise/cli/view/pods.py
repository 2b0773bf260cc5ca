"""What a worker's pod does, in one word and one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from shardwise.cli.names import CONTAINER, INDEX
from shardwise.cli.view.fields import Object, duration, items, pick, text, time
from shardwise.cli.view.style import Paint
from shardwise.cli.view.table import table

GLYPHS = {
    "Running": ("■", "green"),
    "Succeeded": ("✓", "green"),
    "Starting": ("◧", "cyan"),
    "Pending": ("□", "yellow"),
    "Ending": ("▽", "blue"),
    "Failed": ("✗", "red"),
    "Missing": ("·", "dim"),
}
"""The sign and the colour of each state of a worker."""


@dataclass(frozen=True)
class Worker:
    """One worker pod, as far as its status tells."""

    index: int
    pod: str
    state: str
    detail: str = ""
    node: str = ""
    restarts: int = 0
    since: datetime | None = None


def workers(pods: Iterable[Object]) -> list[Worker]:
    """The workers of a job, by index."""
    return sorted(map(worker, pods), key=lambda w: (w.index, w.pod))


def worker(pod: Object) -> Worker:
    """Reads one pod."""
    label = str((pick(pod, "metadata.labels") or {}).get(INDEX, ""))
    container: Object = next(
        (s for s in items(pod, "status.containerStatuses") if s.get("name") == CONTAINER), {}
    )
    state, detail = _state(pod, container)
    return Worker(
        index=int(label) if label.isdecimal() else -1,
        pod=text(pod, "metadata.name"),
        state=state,
        detail=detail,
        node=text(pod, "spec.nodeName"),
        restarts=int(pick(container, "restartCount") or 0),
        since=time(pick(pod, "metadata.creationTimestamp")),
    )


def _state(pod: Object, container: Object) -> tuple[str, str]:
    phase = text(pod, "status.phase")
    if phase == "Succeeded":
        return "Succeeded", ""
    if phase == "Failed":
        return "Failed", _how_it_ended(pod, container)
    if pick(pod, "metadata.deletionTimestamp"):
        return "Ending", "is being deleted"
    if phase == "Running":
        if pick(container, "state.terminated"):
            return "Failed", _how_it_ended(pod, container)
        return ("Running" if container.get("ready", True) else "Starting"), ""
    waiting = pick(container, "state.waiting") or _waiting_init(pod)
    if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return "Pending", _sentence(waiting)
    for entry in items(pod, "status.conditions"):
        if entry.get("type") == "PodScheduled" and entry.get("status") == "False":
            return "Pending", _sentence(entry)
    return ("Starting", str(waiting["reason"])) if waiting else ("Pending", "")


def _waiting_init(pod: Object) -> Object | None:
    for status in items(pod, "status.initContainerStatuses"):
        waiting = pick(status, "state.waiting")
        if waiting:
            found: Object = waiting
            return found
    return None


def _how_it_ended(pod: Object, container: Object) -> str:
    if pick(pod, "status.reason"):  # Evicted, NodeLost, …
        return f"{text(pod, 'status.reason')}: {text(pod, 'status.message')}".rstrip(": ")
    code, reason = pick(container, "state.terminated.exitCode"), ""
    if code is None:
        return "no exit code is known"
    reason = text(container, "state.terminated.reason")
    said = f", {reason}" if reason not in ("", "Error") else ""
    return f"exit code {code}{said}"


def _sentence(told: Object) -> str:
    reason, message = str(told.get("reason") or ""), str(told.get("message") or "")
    return f"{reason}: {message}" if message else reason


def summary(found: Sequence[Worker], paint: Paint) -> str:
    """■ 3 Running · ✗ 1 Failed"""
    counts = {state: sum(w.state == state for w in found) for state in GLYPHS}
    return " · ".join(
        f"{paint(GLYPHS[state][0], GLYPHS[state][1])} {count} {state}"
        for state, count in counts.items()
        if count
    )


def expected(job: Object) -> set[int]:
    """The indices that the job should have workers of, by its status, else by its spec."""
    names = pick(job, "status.workers.names")
    if isinstance(names, list) and names:
        ends = [str(name).rpartition("-")[2] for name in names]
        return {int(end) for end in ends if end.isdecimal()}
    replicas = pick(job, "spec.workers.replicas")
    return set(range(replicas if isinstance(replicas, int) else 1))


def grid(found: Sequence[Worker], wanted: set[int], width: int, paint: Paint) -> list[str]:
    """A sign for each index, as many in a row as fit, in groups of eight; absent ones are dots."""
    here = {worker.index: worker.state for worker in found if worker.index >= 0}
    indices = sorted(wanted | set(here))
    if not indices:
        return []
    margin = len(str(indices[-1])) + 1
    groups = max(1, (width - margin) // 17)
    lines = []
    for start in range(0, len(indices), 8 * groups):
        row = indices[start : start + 8 * groups]
        signs = [paint(*GLYPHS[here.get(index, "Missing")]) for index in row]
        packs = [" ".join(signs[place : place + 8]) for place in range(0, len(signs), 8)]
        lines.append(f"{paint(str(row[0]).rjust(margin - 1), 'dim')} {'  '.join(packs)}")
    return lines


def workers_table(found: Sequence[Worker], now: datetime, paint: Paint) -> list[str]:
    """A row for each worker."""
    rows = [
        (
            str(w.index) if w.index >= 0 else "?",
            w.pod,
            w.node or "-",
            w.state,
            str(w.restarts),
            duration((now - w.since).total_seconds()) if w.since else "-",
            w.detail,
        )
        for w in found
    ]

    def style(heading: str, cell: str) -> str:
        return paint(cell, GLYPHS.get(cell.strip(), ("", ""))[1]) if heading == "STATE" else cell

    return table(("RANK", "POD", "NODE", "STATE", "RESTARTS", "AGE", "DETAIL"), rows, style)
