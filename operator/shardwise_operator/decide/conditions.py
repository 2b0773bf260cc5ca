"""The list of conditions: each keeps the time of its last change of status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shardwise.api.conditions import RECONCILE_FAILED, TYPES
from shardwise_operator.clamp import word
from shardwise_operator.observe import parse_time


class Conditions:
    """Conditions in the making, from those that are in the status."""

    def __init__(
        self, old: Sequence[Mapping[str, Any]] | None, generation: int, now: datetime
    ) -> None:
        # A decision is being made again: that the last could not be is over.
        self._entries = {
            str(entry.get("type")): dict(entry)
            for entry in old or ()
            if entry.get("reason") != RECONCILE_FAILED
        }
        self._generation = generation
        self._now = now

    def set(self, type_: str, holds: bool, reason: str, message: str) -> None:
        status = "True" if holds else "False"
        old = self._entries.get(type_)
        kept = old.get("lastTransitionTime") if old and old.get("status") == status else None
        self._entries[type_] = {
            "type": type_,
            "status": status,
            "observedGeneration": self._generation,
            "lastTransitionTime": kept or format_time(self._now),
            "reason": word(reason, "Unknown"),  # It may be a worker's own.
            "message": message,
        }

    def true_since(self, type_: str) -> datetime | None:
        """When the condition became true; None while it is not."""
        return condition_true_since(list(self._entries.values()), type_)

    def false_since(self, type_: str) -> datetime | None:
        """When the condition became false; None while it is true, and where there is none."""
        return _since(list(self._entries.values()), type_, "False")

    def reason(self, type_: str) -> str:
        return str((self._entries.get(type_) or {}).get("reason") or "")

    def listed(self) -> list[dict[str, Any]]:
        """All of them, in the order of the API's list."""
        rank = {type_: place for place, type_ in enumerate(TYPES)}
        return sorted(self._entries.values(), key=lambda e: (rank.get(e["type"], 99), e["type"]))


def condition_true_since(
    entries: Sequence[Mapping[str, Any]] | None, type_: str
) -> datetime | None:
    return _since(entries, type_, "True")


def _since(entries: Sequence[Mapping[str, Any]] | None, type_: str, status: str) -> datetime | None:
    for entry in entries or ():
        if entry.get("type") == type_ and entry.get("status") == status:
            return parse_time(entry.get("lastTransitionTime")) or datetime.fromtimestamp(0, UTC)
    return None


def format_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
