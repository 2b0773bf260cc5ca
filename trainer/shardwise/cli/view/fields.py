"""Reading of objects as the API server hands them out: any field may be absent or new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Object = Mapping[str, Any]

ENDED = frozenset({"Succeeded", "Failed"})


def pick(found: Any, path: str) -> Any:
    """The value at a path such as `status.progress.step`; None where a part of it is absent."""
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return found


def text(found: Any, path: str, absent: str = "") -> str:
    value = pick(found, path)
    return absent if value is None else str(value)


def number(found: Any, path: str) -> float | None:
    """The figure at a path; statuses hold ratios and rates as texts."""
    value = pick(found, path)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def items(found: Any, path: str) -> list[Any]:
    """The mappings of a list at a path."""
    value = pick(found, path)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def name(job: Object) -> str:
    return text(job, "metadata.name")


def state(job: Object) -> str:
    """The job's state; Unknown before an operator has looked at it."""
    return text(job, "status.state") or "Unknown"


def ended(job: Object) -> bool:
    return state(job) in ENDED


def condition(job: Object, type_: str) -> Object:
    """The condition of this type; empty where there is none."""
    for entry in items(job, "status.conditions"):
        if entry.get("type") == type_:
            found: Object = entry
            return found
    return {}


def time(value: Any) -> datetime | None:
    """A time as the API writes it, with or without parts of a second."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def age(found: Any, path: str, now: datetime) -> str:
    """How long ago the time at a path was: 5s, 3m20s; empty where there is none."""
    moment = time(pick(found, path))
    return duration((now - moment).total_seconds()) if moment else ""


def duration(seconds: float) -> str:
    """5s, 2m10s, 1h05m, 3d04h: two units at the most."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def short_duration(seconds: float) -> str:
    """As `duration`, finer where it is short: 42ms, 3.5s."""
    if 0 < seconds < 0.9995:
        return f"{1000 * seconds:.0f}ms"
    return f"{seconds:.1f}s" if 0 <= seconds < 10 else duration(seconds)


def size(count: float) -> str:
    """1,023 B, 12.3 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes any size")


def plural(count: int, noun: str) -> str:
    many = noun[:-1] + "ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"
