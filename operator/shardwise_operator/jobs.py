"""The jobs as last seen, by key: filled by their informer and by the controller's own writes.

What one job makes the operator keep is bounded: of a job that is larger than MAX_BYTES nothing is
kept but who it is, and `decide` says so of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_json

Key = tuple[str, str]
"""Namespace and name."""

MAX_BYTES = 512 * 1024
"""Of a job without its status, as JSON. A list of 1,000 tasks with 6 parameters each has 150 kB."""
TOO_LARGE = "tooLarge"
"""Key beside `spec` in the place of what was too large: its size in bytes."""
KEPT = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
)


class JobStore:
    """Keeps the newest version of each job."""

    def __init__(self) -> None:
        self._jobs: dict[Key, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._jobs.values())

    def all_keys(self) -> list[Key]:
        return list(self._jobs)

    def get(self, key: Key) -> Mapping[str, Any] | None:
        return self._jobs.get(key)

    def put(self, raw: Mapping[str, Any]) -> None:
        """Takes the object in, unless a newer version of it is known already."""
        key = key_of(raw)
        known = self._jobs.get(key)
        if known is not None and _uid(known) == _uid(raw) and _version(raw) < _version(known):
            return
        self._jobs[key] = bounded(raw)

    def remove(self, key: Key, uid: str | None = None) -> None:
        """Drops the job; with a uid, only if it is that very one."""
        known = self._jobs.get(key)
        if known is not None and (uid is None or _uid(known) == uid):
            del self._jobs[key]


def bounded(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is kept of a job: neither managedFields nor annotations, and of one that is too large
    no more than its status and who it is."""
    meta = raw.get("metadata")
    kept = {name: meta[name] for name in KEPT if name in meta} if isinstance(meta, Mapping) else {}
    try:
        size = len(to_json(raw.get("spec")))
    except ValueError:  # Nested more deeply than it can be written: `decide` says so.
        size = 0
    if size <= MAX_BYTES:
        return {**raw, "metadata": kept}
    short = {name: raw[name] for name in ("apiVersion", "kind", "status") if name in raw}
    return {**short, "metadata": kept, "spec": {}, TOO_LARGE: size}


def key_of(raw: Mapping[str, Any]) -> Key:
    meta = raw.get("metadata") or {}
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")


def _uid(raw: Mapping[str, Any]) -> str:
    return str((raw.get("metadata") or {}).get("uid") or "")


def _version(raw: Mapping[str, Any]) -> int:
    """Versions of one object grow; a server whose versions are not numbers is taken as it comes."""
    text = str((raw.get("metadata") or {}).get("resourceVersion") or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 100 else 2**63
