"""Lays the user's part of a pod spec over ours: maps merge, named lists merge by name.

The same idea as a strategic merge patch, for the few lists where it matters; every other list is
replaced. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

# Which field names the entries of each list that merges.
MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
}
SOURCES = ("output", "tmp", "coordinator-token", "checkpoint", "code")
"""The volumes that are ours."""


def merged_pod_spec(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Ours with theirs laid over it; a null of theirs removes."""
    result = deepcopy(dict(ours))
    for key, value in theirs.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged_pod_spec(result[key], value)
        elif key in MERGE_KEYS and isinstance(value, Sequence) and result.get(key):
            single = key in ("env", "volumes")
            result[key] = _merged_list(result[key], value, MERGE_KEYS[key], single)
        else:
            result[key] = deepcopy(value)
    return result


def _merged_list(ours: Sequence[Any], theirs: Sequence[Any], name: str, single: bool) -> list[Any]:
    result = [deepcopy(entry) for entry in ours]
    for entry in theirs:
        if not isinstance(entry, Mapping):
            result.append(deepcopy(entry))
            continue
        same = (i for i, e in enumerate(result) if isinstance(e, Mapping) and _same(e, entry, name))
        place = next(same, None)
        if place is None:
            result.append(deepcopy(dict(entry)))
        elif single and len(entry) > 1:
            # A variable and a volume have one source, so another takes its place.
            result[place] = deepcopy(dict(entry))
        else:
            result[place] = merged_pod_spec(result[place], entry)
    return result


def _same(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> bool:
    return bool(ours.get(name) == theirs.get(name))
