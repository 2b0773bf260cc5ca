"""Which checkpoints go, and their removal."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from enum import Enum

from shardwise.checkpoint.files import Files
from shardwise.checkpoint.layout import MANIFEST, BrokenError, Name, is_ours
from shardwise.checkpoint.reader import read_manifest

_log = logging.getLogger(__name__)

_ROUNDS = 3
"""Times that a directory is emptied, where another process still writes into it."""


class State(Enum):
    """How a checkpoint lies there, from its manifest and the sizes of its files."""

    UNCOMMITTED = "uncommitted"
    SOUND = "sound"
    UNSOUND = "unsound"


def doomed(
    found: Mapping[Name, State],
    *,
    current: Name,
    committed: bool,
    keep: int,
    awaited: Collection[Name] = (),
) -> list[Name]:
    """The checkpoints to remove, the oldest first.

    Only what is older than the current one and of its job is ever removed. What is newer is of a
    life that ended, and is overtaken in time. One that is not sound does not count as kept, so
    that a spoilt one never drives out a good one.

    Args:
        found: all checkpoints of the location.
        current: the one being written, or just committed.
        committed: whether it is; if not, only what was never committed goes.
        keep: sound committed checkpoints to keep, the current one among them.
        awaited: uncommitted ones that may still be completed.
    """
    older = [name for name in found if name.job == current.job and name < current]
    gone, kept = [], 1
    for name in sorted(older, reverse=True):
        if found[name] is State.UNCOMMITTED:
            if name not in awaited:
                gone.append(name)
        elif not committed:
            continue
        elif kept >= keep:
            gone.append(name)
        elif found[name] is State.SOUND:
            kept += 1
    return gone[::-1]


def survey(files: Files, job: str) -> dict[Name, State]:
    """A job's checkpoints and how they lie there."""
    names = (Name.parse(name) for name, size in files.entries("").items() if size is None)
    return {name: _state(files, name) for name in names if name is not None and name.job == job}


def remove(files: Files, name: Name) -> None:
    """Remove a checkpoint. Files in its directory that are not ours stay, and it with them.

    The manifest goes first: from then on nobody takes it for a checkpoint. An error is logged:
    the next commit tries again.
    """
    try:
        for _ in range(_ROUNDS):
            names = [each for each in files.entries(str(name)) if is_ours(each)]
            if MANIFEST in names:
                files.remove(f"{name}/{MANIFEST}")
                files.sync(str(name))
            for each in names:
                files.remove(f"{name}/{each}")
            files.remove_directory(str(name))
            if not files.entries(str(name)):
                break
    except FileNotFoundError:
        pass  # another did it
    except OSError as error:
        _log.warning("cannot remove checkpoint %s/%s: %s", files.root, name, error)


def _state(files: Files, name: Name) -> State:
    entries = files.entries(str(name))
    if MANIFEST not in entries:
        return State.UNCOMMITTED
    try:
        manifest = read_manifest(files, name)
    except (BrokenError, OSError):
        return State.UNSOUND
    whole = all(entries.get(part.file) == part.bytes for part in manifest.parts)
    return State.SOUND if whole else State.UNSOUND
