"""The newest good checkpoint, and what there is of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import torch

from shardwise.checkpoint.files import Files, open_files
from shardwise.checkpoint.layout import (
    DOCUMENT_BYTES,
    MANIFEST,
    BrokenError,
    Manifest,
    Name,
    Part,
    job_digits,
)
from shardwise.checkpoint.remedy import CheckpointError, explain
from shardwise.checkpoint.tensors import decode
from shardwise.checkpoint.versions import versions
from shardwise.engine.snapshot import Snapshot

_log = logging.getLogger(__name__)

_ROUNDS = 10
"""Times that the directory is listed anew where checkpoints were removed while they were read."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A checkpoint as it lies there; nothing of it but the manifest was read.

    Attributes:
        path: its directory, under the location.
        bytes: of its parts, as far as they are written.
        at: when it was committed; None if it is not, or its manifest cannot be read.
        trouble: what is wrong with its manifest, or "".
    """

    path: str
    step: int
    generation: int
    workers: int
    bytes: int
    committed: bool
    at: datetime | None
    trouble: str = ""


def listing(location: str) -> tuple[Listed, ...]:
    """All checkpoints under a path or URL, the newest first, of whatever job.

    Raises:
        CheckpointError: the location cannot be read.
    """
    try:
        files = open_files(location)
        names = _names(files)
        return tuple(listed for name in names if (listed := _listed(files, name)) is not None)
    except OSError as error:
        raise CheckpointError(explain(error, f"cannot read {location}")) from error


def newest(
    location: str,
    identity: str,
    *,
    files: Files | None = None,
    on_damage: Callable[[str], object] | None = None,
) -> Snapshot | None:
    """The newest good checkpoint of a job, whole, or None if there is none.

    Good is one that is committed, of this identity, and whose every part has the bytes that its
    manifest promises. Any other is skipped with a warning that names the file and what is wrong.
    What is returned was parsed from the very bytes that were verified. Checkpoints may be written
    and removed meanwhile.

    Args:
        location: a path or an fsspec URL.
        identity: what the job trains, as given to `Checkpointer`.
        files: instead of what `location` names; for tests.
        on_damage: told of each one of this job that is skipped: the file and what is wrong.

    Raises:
        CheckpointError: the location cannot be read. Not to be taken for "there is none": to
            start anew then would throw work away.
    """
    refused: set[Name] = set()
    before: list[Name] = []
    try:
        files = files or open_files(location)
        for _ in range(_ROUNDS):
            uncommitted = []
            for name in _names(files):
                if name in refused:
                    continue
                try:
                    return _read(files, name, identity)
                except _RefusedError as error:
                    _log.warning("checkpoint skipped: %s", error)
                    refused.add(name)
                    if on_damage is not None and not isinstance(error, _ForeignError):
                        on_damage(str(error))
                except _UncommittedError:
                    uncommitted.append(name)
            # One that had not been committed when it was looked at may have been since, and the
            # one before it removed: there is none only if a second look finds the same.
            if uncommitted == before:
                return None
            before = uncommitted
    except OSError as error:
        raise CheckpointError(explain(error, f"cannot read {location}")) from error
    raise CheckpointError(
        f"checkpoints under {location} are removed faster than they can be read; "
        "raise spec.checkpoint.keep or spec.checkpoint.everySteps"
    )


def read_manifest(files: Files, name: Name) -> Manifest:
    """A committed checkpoint's manifest.

    Raises:
        BrokenError: it was changed, or is not this checkpoint's.
        OSError: it cannot be read.
    """
    manifest = Manifest.unseal(bytes(files.get(f"{name}/{MANIFEST}", DOCUMENT_BYTES)))
    manifest.check(name)
    return manifest


class _RefusedError(Exception):
    """The checkpoint is not good; the message names the file and what is wrong."""


class _ForeignError(_RefusedError):
    """It is another job's."""


class _UncommittedError(Exception):
    """The checkpoint is not committed: not yet, or not any more since it was removed."""


def _names(files: Files) -> list[Name]:
    """The checkpoints' directories, the newest first."""
    found = (Name.parse(name) for name, size in files.entries("").items() if size is None)
    return sorted((name for name in found if name is not None), reverse=True)


def _listed(files: Files, name: Name) -> Listed | None:
    entries = files.entries(str(name))
    at, trouble, committed = None, "", MANIFEST in entries
    size = sum(size or 0 for entry, size in entries.items() if entry.endswith(".safetensors"))
    if committed:
        try:
            manifest = read_manifest(files, name)
            at, size = datetime.fromisoformat(manifest.at), manifest.bytes
        except FileNotFoundError:
            return None
        except (BrokenError, ValueError) as error:
            trouble = f"{MANIFEST} {error}"
        except OSError as error:
            trouble = f"{MANIFEST}: {error.strerror or error}"
    return Listed(
        path=str(name),
        step=name.step,
        generation=name.generation,
        workers=name.workers,
        bytes=size,
        committed=committed,
        at=at,
        trouble=trouble,
    )


def _read(files: Files, name: Name, identity: str) -> Snapshot:
    """The checkpoint, whole and verified.

    Raises:
        _RefusedError, _UncommittedError: see there.
    """
    file = f"{name}/{MANIFEST}"
    try:
        if not _committed(files, name):
            raise _UncommittedError
        manifest = read_manifest(files, name) if name.job == job_digits(identity) else None
        if manifest is None or manifest.identity != identity:
            what = "belongs to another job, or to another spec.trainer of this one"
            raise _ForeignError(f"{files.root}/{file}: {what}")
        whole: Snapshot | None = None
        entries = files.entries(str(name))
        for part in manifest.parts:
            file = f"{name}/{part.file}"
            if part.file in entries:  # Else it is missing, or was removed: reading tells.
                _sized(entries[part.file], part)
        for part in manifest.parts:
            file = f"{name}/{part.file}"
            piece = _part(files, file, part, manifest)
            whole = _begun(piece, manifest) if whole is None else whole
            _join(whole, piece)
    except FileNotFoundError as error:
        if not _committed(files, name):
            raise _UncommittedError from error
        raise _RefusedError(f"{files.root}/{file}: is missing") from error
    except OSError as error:
        raise _RefusedError(f"{files.root}/{file}: {error.strerror or error}") from error
    except BrokenError as error:
        raise _RefusedError(f"{files.root}/{file}: {error}") from error
    if whole is None:
        raise _RefusedError(f"{files.root}/{file}: lists no parts")
    if manifest.versions != versions():
        _log.warning(
            "checkpoint %s/%s was written with %s, this is %s: training goes on from it, but may "
            "end in other bytes",
            files.root,
            name,
            manifest.versions,
            versions(),
        )
    return whole


def _committed(files: Files, name: Name) -> bool:
    # Removal takes the manifest first.
    return MANIFEST in files.entries(str(name))


def _sized(size: int | None, part: Part) -> None:
    """Whether a part that is there has the size that the manifest promises: memory for the whole
    is taken only once all parts have."""
    if size is None:
        raise BrokenError("is no regular file")
    if size != part.bytes:
        raise BrokenError(f"has {size} bytes, not {part.bytes}: it was truncated or changed")
    if part.stop - part.start > size:
        raise BrokenError(f"cannot hold elements {part.start} to {part.stop} in {size} bytes")


def _part(files: Files, file: str, part: Part, manifest: Manifest) -> Snapshot:
    data = files.get(file)
    if len(data) != part.bytes:
        raise BrokenError(f"has {len(data)} bytes, not {part.bytes}: it was truncated or changed")
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise BrokenError("does not match its hash: it was changed after it was written")
    piece = decode(data)
    said = (piece.step, piece.evaluated, piece.length, piece.part)
    if said != (manifest.step, manifest.evaluated, manifest.length, slice(part.start, part.stop)):
        raise BrokenError(f"is of another place than the manifest says: {said}")
    for name, vector in piece.vectors.items():
        if vector.shape != (part.stop - part.start,):
            raise BrokenError(f"holds a vector {name!r} of shape {tuple(vector.shape)}")
    return piece


def _begun(first: Snapshot, manifest: Manifest) -> Snapshot:
    """Rank 0's part, with room for the others'; if it is all there is, itself."""
    if len(manifest.parts) == 1:
        return first
    return Snapshot(
        step=first.step,
        evaluated=first.evaluated,
        length=first.length,
        part=slice(0, manifest.length),
        vectors={
            name: torch.empty(manifest.length, dtype=vector.dtype)
            for name, vector in first.vectors.items()
        },
        tensors=first.tensors,
        history=first.history,
    )


def _join(whole: Snapshot, piece: Snapshot) -> None:
    if piece.vectors is whole.vectors:
        return
    kinds = {name: vector.dtype for name, vector in piece.vectors.items()}
    if kinds != {name: vector.dtype for name, vector in whole.vectors.items()}:
        raise BrokenError(f"holds other vectors than rank 0's part: {kinds}")
    for name, vector in piece.vectors.items():
        whole.vectors[name][piece.part] = vector
