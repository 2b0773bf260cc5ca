"""The jobs as last seen, by key: filled by the handlers and by the controller's own writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Key = tuple[str, str]
"""Namespace and name."""


class JobStore:
    """Keeps the newest version of each job."""

    def __init__(self) -> None:
        self._jobs: dict[Key, Mapping[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._jobs.values())

    def get(self, key: Key) -> Mapping[str, Any] | None:
        return self._jobs.get(key)

    def put(self, raw: Mapping[str, Any]) -> None:
        """Takes the object in, unless a newer version of it is known already."""
        key = key_of(raw)
        known = self._jobs.get(key)
        if known is not None and _uid(known) == _uid(raw) and _version(raw) < _version(known):
            return
        meta = {k: v for k, v in (raw.get("metadata") or {}).items() if k != "managedFields"}
        self._jobs[key] = {**raw, "metadata": meta}

    def remove(self, key: Key, uid: str | None = None) -> None:
        """Drops the job; with a uid, only if it is that very one."""
        known = self._jobs.get(key)
        if known is not None and (uid is None or _uid(known) == uid):
            del self._jobs[key]


def key_of(raw: Mapping[str, Any]) -> Key:
    meta = raw.get("metadata") or {}
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")


def _uid(raw: Mapping[str, Any]) -> str:
    return str((raw.get("metadata") or {}).get("uid") or "")


def _version(raw: Mapping[str, Any]) -> int:
    """Versions of one object grow; a server whose versions are not numbers is taken as it comes."""
    text = str((raw.get("metadata") or {}).get("resourceVersion") or "")
    return int(text) if text.isascii() and text.isdigit() else 2**63
