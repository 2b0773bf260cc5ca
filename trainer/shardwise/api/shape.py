"""How deep a manifest is nested. What reads it further on may then go down by itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 64
"""Levels. A pod's spec has 15 at the most."""


def too_deep(value: Any, at: str, most: int = MAX_DEPTH) -> str | None:
    """Where a value is nested deeper than `most`; None where it nowhere is."""
    waiting: list[tuple[Any, tuple[Any, ...], int]] = [(value, (at, None), 0)]
    while waiting:
        item, way, depth = waiting.pop()
        if depth > most:
            return _path(way)
        if isinstance(item, Mapping):
            waiting += ((inner, (f".{key}", way), depth + 1) for key, inner in item.items())
        elif isinstance(item, list | tuple):
            waiting += ((inner, (f"[{i}]", way), depth + 1) for i, inner in enumerate(item))
    return None


def _path(way: tuple[Any, ...]) -> str:
    """The beginning of the way: that is where the user looks."""
    parts: list[str] = []
    node: Any = way
    while node is not None:
        parts.append(node[0])
        node = node[1]
    return "".join(parts[::-1][:8]) + "…"
