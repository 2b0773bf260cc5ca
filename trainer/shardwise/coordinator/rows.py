"""The rows of a pool's table in a form that fits into one message, and back."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from shardwise.coordinator.codec import from_json, to_json
from shardwise.coordinator.report import TaskRow

PACKED_BYTES = 900_000
"""Less than a message may have."""


def pack(rows: Sequence[TaskRow]) -> str:
    """The rows as text. Where they do not fit, messages go first, then hashes: both can be had
    again from the tasks' own files."""
    cuts: tuple[dict[str, Any], ...] = (
        {},
        {"message": ""},
        {"message": "", "weights_sha256": ""},
        {"message": "", "weights_sha256": "", "metrics": {}},
    )
    text = ""
    for cut in cuts:
        text = _packed(replace(row, **cut) for row in rows)
        if len(text) <= PACKED_BYTES:
            break
    return text


def unpack(text: str) -> tuple[TaskRow, ...]:
    """The rows that `pack` made a text of."""
    if not text:
        return ()
    found = json.loads(zlib.decompress(base64.b64decode(text)))
    return tuple(from_json(TaskRow, row, "row") for row in found)


def _packed(rows: Iterable[TaskRow]) -> str:
    text = json.dumps([to_json(row) for row in rows], separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
