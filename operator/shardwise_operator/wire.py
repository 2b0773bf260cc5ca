"""What the API server sends, read so that no object can end the reader.

A server keeps objects that are nested 10,000 deep, which no parser here reads, and one of them in
a list would hide all the others. So what lies deeper than anything that means something is cut
off: `observe` finds the object too deep and says so of it. Does no I/O.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Protocol

from pydantic_core import from_json, to_json

CUT_DEPTH = 150
"""Levels that are kept of what is nested more deeply; the parser itself reads 200."""
MAX_TOKENS = 100_000
"""Brackets and strings that are gone through for it: some 50 ms of the event loop. One that
is nested 10,000 deep, the most that a server takes, has 60,000 with its managedFields."""
MAX_LINE = 8 * 2**20
"""Bytes of one watch event. etcd keeps objects of up to 1.5 MiB."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_CONTINUE = re.compile(rb'"continue":"([^"]*)"')
_VERSION = re.compile(rb'"resourceVersion":"([^"]*)"')
TAIL_BYTES = 4096
GONE = 410
"""The HTTP status for a version that the server keeps no more."""


class Chunks(Protocol):
    """A stream of bytes, as aiohttp's responses have it."""

    def iter_any(self) -> AsyncIterator[bytes]: ...


def read(data: bytes, tokens: int | None = MAX_TOKENS) -> Any:
    """The value of a JSON text, without what lies deeper than CUT_DEPTH.

    Args:
        tokens: how many are gone through; None for all, which is not for the event loop.

    Raises:
        ValueError: it is no JSON, or too deep and too large at once.
    """
    try:
        return from_json(data)
    except ValueError as error:
        if "recursion limit" not in str(error):
            raise
    return from_json(_cut(data, tokens))


def watch_event(line: bytes) -> bytes:
    """One event of a watch, as text that any parser reads.

    An error of the server's becomes that of an expired version: the watcher lists again, and does
    not end.

    Raises:
        ValueError: it is no event, or too deep and too large at once.
    """
    event = read(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ValueError("it is no watch event")
    if event.get("type") == "ERROR":
        return to_json({"type": "ERROR", "object": {**event["object"], "code": GONE}})
    return to_json(event)


def _cut(data: bytes, tokens: int | None) -> bytes:
    """The text with a null for each container that lies too deep."""
    kept: list[bytes] = []
    depth = begin = 0
    for count, token in enumerate(_TOKEN.finditer(data)):
        if tokens is not None and count > tokens:
            raise ValueError(f"nested too deeply to be read, and {len(data)} bytes long")
        start = data[token.start()]
        if start in b"[{":
            depth += 1
            if depth == CUT_DEPTH + 1:
                kept += (data[begin : token.start()], b"null")
        elif start in b"]}":
            if depth == CUT_DEPTH + 1:
                begin = token.end()
            depth -= 1
    return b"".join((*kept, data[begin:]))


def list_end(data: bytes) -> dict[str, str]:
    """metadata of a list whose items cannot be read: it stands behind them."""
    tail = data[-TAIL_BYTES:]
    tail = tail[tail.rfind(b'"metadata"') :]
    found: dict[str, str] = {}
    for name, pattern in (("continue", _CONTINUE), ("resourceVersion", _VERSION)):
        match = pattern.search(tail)
        if match:
            found[name] = match.group(1).decode()
    return found


async def lines(content: Chunks) -> AsyncIterator[bytes]:
    """The lines of a stream; of one that is longer than MAX_LINE, an empty one."""
    parts: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join((*parts, end)) if size <= MAX_LINE else b""
            parts, size = [], 0
        if size <= MAX_LINE:
            parts.append(rest)
        size += len(rest)
    if size and size <= MAX_LINE:
        yield b"".join(parts)
