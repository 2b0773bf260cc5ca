"""Where in the job a pod's field comes from: the API server's words name the pod's. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FIELD = re.compile(r"(?<![\w.])spec\.(\w+)(?:\[(\d+)\])?")
_VOLUMES = {"output": "spec.output.volume", "checkpoint": "spec.checkpoint.volume"}


def in_the_job(message: str, pod: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The message with the fields of the job in place of the pod's."""
    template = (manifest.get("spec") or {}).get("template") or {}
    theirs = template.get("spec") or {}

    def field(match: re.Match[str]) -> str:
        name, place = match[1], match[2]
        if place is None:
            return f"spec.template.spec.{name}"
        entries = (pod.get("spec") or {}).get(name) or ()
        entry = entries[int(place)] if int(place) < len(entries) else {}
        own = entry.get("name") if isinstance(entry, Mapping) else None
        for index, given in enumerate(theirs.get(name) or ()):
            if isinstance(given, Mapping) and given.get("name") == own:
                return f"spec.template.spec.{name}[{index}]"
        if name == "volumes" and own in _VOLUMES:
            return _VOLUMES[own]
        return f"spec.template.spec.{name}[name: {own}]" if own else match[0]

    return _FIELD.sub(field, message)
