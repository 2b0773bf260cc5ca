"""One worker's share of writing checkpoints, step by step; `Checkpointer` runs it in a thread.

Every rank writes its part and then, as a mark that the part is complete, its sidecar. Rank 0
looks for the sidecars of all, and writes the manifest when it has them: that is the commit.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shardwise.checkpoint import retention
from shardwise.checkpoint.files import Files
from shardwise.checkpoint.layout import (
    DOCUMENT_BYTES,
    MANIFEST,
    BrokenError,
    Manifest,
    Name,
    Part,
    Sidecar,
    sidecar_file,
)
from shardwise.checkpoint.remedy import explain
from shardwise.checkpoint.tensors import chunks, encode
from shardwise.checkpoint.versions import versions
from shardwise.engine.snapshot import Snapshot

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """A checkpoint was committed, or could not be written.

    Attributes:
        step: the steps done in it.
        bytes: of all its parts; 0 if it failed.
        seconds: from `save` to the commit or the failure.
        error: what failed and what helps; "" if it was committed.
        skipped: checkpoints that were left out since the last report, because an earlier one was
            still being written.
    """

    step: int
    bytes: int
    seconds: float
    error: str = ""
    skipped: int = 0


class StoppedError(Exception):
    """The process is about to end: what is being written is given up."""


@dataclass(frozen=True, kw_only=True)
class Save:
    """What `Checkpointer.save` was called with, and when (time.monotonic)."""

    snapshot: Snapshot
    rank: int
    name: Name
    began: float


@dataclass
class _Pending:
    """A checkpoint that rank 0 waits to commit."""

    name: Name
    evaluated: int
    length: int
    began: float
    parts: dict[int, Part] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        return [rank for rank in range(self.name.workers) if rank not in self.parts]


class _FailedError(Exception):
    """A checkpoint will not be completed; the message says why."""


class Saver:
    """Writes parts and, on rank 0, commits.

    Args:
        part_seconds: how long rank 0 waits for the parts of the others.
        stopping: asked between chunks; once true, writing ends with StoppedError.
    """

    def __init__(
        self,
        files: Files,
        *,
        identity: str,
        keep: int,
        on_report: Callable[[Report], None],
        part_seconds: float = 600.0,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._files = files
        self._identity = identity
        self._keep = keep
        self._on_report = on_report
        self._part_seconds = part_seconds
        self._stopping = stopping
        self._pending: list[_Pending] = []
        self.superseded = 0
        """Checkpoints given up for a newer one since this was last set to 0."""

    @property
    def waiting(self) -> bool:
        """Whether a checkpoint waits for the parts of other ranks."""
        return bool(self._pending)

    def write(self, save: Save) -> None:
        """Write this rank's part. What goes wrong is reported.

        Raises:
            StoppedError: told to stop. What was begun is removed.
        """
        try:
            if save.rank == 0:
                # Ours first: who still writes one that goes sees by it why that is.
                with suppress(OSError):
                    self._files.make(str(save.name))
                self._sweep(save.name, committed=False)
            self._write(save)
        except OSError as error:
            self._clear(save, error)
        except ValueError as error:
            self._report(save.name, save.began, f"checkpoint of step {save.name.step}: {error}")
        else:
            if save.rank == 0:
                self._await(save)

    def poll(self) -> bool:
        """Commit what is complete and give up what is overdue; whether anything changed."""
        for pending in sorted(self._pending, key=lambda each: each.name, reverse=True):
            try:
                self._look(pending)
                if not pending.missing:
                    self._commit(pending)
                    return True
                if time.monotonic() - pending.began > self._part_seconds:
                    raise _FailedError(
                        f"no part of rank {_ranks(pending.missing)} within "
                        f"{self._part_seconds:g} s{_reasons(pending)}; see that all workers reach "
                        "the same volume"
                    )
            except (_FailedError, BrokenError) as error:
                self._fail(pending, str(error))
                return True
            except OSError as error:
                self._fail(pending, explain(error, "cannot be committed"))
                return True
        return False

    def _write(self, save: Save) -> None:
        pieces = encode(save.snapshot, whole=save.rank == 0)
        digest, size = hashlib.sha256(), 0
        for chunk in self._watched(chunks(pieces)):
            digest.update(chunk)
            size += len(chunk)
        place = save.snapshot.part
        part = Part(
            rank=save.rank,
            sha256=digest.hexdigest(),
            bytes=size,
            start=place.start,
            stop=place.stop,
        )
        self._files.make(str(save.name))
        self._files.put(f"{save.name}/{part.file}", self._watched(chunks(pieces)))
        try:
            self._put_sidecar(
                save, Sidecar(identity=self._identity, versions=versions(), part=part)
            )
        except OSError:
            with suppress(OSError):
                if MANIFEST not in self._files.entries(str(save.name)):
                    self._files.remove(f"{save.name}/{part.file}")
            raise

    def _put_sidecar(self, save: Save, sidecar: Sidecar) -> None:
        self._files.put(f"{save.name}/{sidecar_file(save.rank)}", [sidecar.seal()])

    def _clear(self, save: Save, error: OSError) -> None:
        """After a failed write: tell rank 0 not to wait, and report."""
        if isinstance(error, FileNotFoundError) and self._overtaken(save.name):
            self.superseded += 1
            return
        text = explain(error, f"rank {save.rank} cannot write its part")
        with suppress(OSError):
            self._put_sidecar(
                save, Sidecar(identity=self._identity, versions=versions(), error=text)
            )
        self._report(save.name, save.began, f"checkpoint of step {save.name.step}: {text}")

    def _overtaken(self, name: Name) -> bool:
        """Whether rank 0 removed a checkpoint because a newer one was begun."""
        try:
            others = [Name.parse(each) for each in self._files.entries("")]
        except OSError:
            return False
        return name not in others and any(
            other is not None and other.job == name.job and other > name for other in others
        )

    def _watched(self, pieces: Iterable[memoryview]) -> Iterator[memoryview]:
        for piece in pieces:
            if self._stopping():
                raise StoppedError
            yield piece

    def _await(self, save: Save) -> None:
        # The oldest stays, so that workers that need longer than the interval still get one
        # committed; the newest stays, because the oldest may have lost a worker. What is in
        # between goes.
        while len(self._pending) > 1:
            self._give_up(self._pending[-1])
        snapshot = save.snapshot
        self._pending = [each for each in self._pending if each.name != save.name]
        self._pending.append(_Pending(save.name, snapshot.evaluated, snapshot.length, save.began))

    def _look(self, pending: _Pending) -> None:
        entries = self._files.entries(str(pending.name))
        for rank in pending.missing:
            if sidecar_file(rank) not in entries:
                continue
            try:
                data = self._files.get(f"{pending.name}/{sidecar_file(rank)}", DOCUMENT_BYTES)
                sidecar = Sidecar.unseal(bytes(data))
                part = self._accepted(sidecar, rank)
            except (BrokenError, FileNotFoundError) as error:
                # Left by an earlier life, or being replaced: the rank may still write its own.
                pending.refused[rank] = str(error)
                continue
            if entries.get(part.file) == part.bytes:
                pending.parts[rank] = part

    def _accepted(self, sidecar: Sidecar, rank: int) -> Part:
        if sidecar.identity != self._identity:
            raise BrokenError("its sidecar is of another job")
        if sidecar.error:
            raise _FailedError(sidecar.error)
        if sidecar.versions != versions():
            raise BrokenError(f"it is written with {sidecar.versions}, this is {versions()}")
        if sidecar.part is None or sidecar.part.rank != rank:
            raise BrokenError("its sidecar is of another rank")
        return sidecar.part

    def _commit(self, pending: _Pending) -> None:
        name = pending.name
        manifest = Manifest(
            identity=self._identity,
            step=name.step,
            generation=name.generation,
            evaluated=pending.evaluated,
            length=pending.length,
            parts=tuple(part for _, part in sorted(pending.parts.items())),
            versions=versions(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        manifest.check(name)
        # The parts' names must not be lost to a power cut that leaves the manifest's.
        self._files.sync(str(name))
        self._files.put(f"{name}/{MANIFEST}", [manifest.seal()])
        self._pending.remove(pending)
        for older in [each for each in self._pending if each.name < name]:
            self._give_up(older)
        self._report(name, pending.began, "", manifest.bytes)
        self._sweep(name, committed=True)

    def _give_up(self, pending: _Pending) -> None:
        self._pending.remove(pending)
        self.superseded += 1
        _log.info("checkpoint %s is given up for a newer one", pending.name)

    def _fail(self, pending: _Pending, reason: str) -> None:
        self._pending.remove(pending)
        text = f"checkpoint of step {pending.name.step}: {reason}"
        self._report(pending.name, pending.began, text)

    def _sweep(self, current: Name, *, committed: bool) -> None:
        """Remove what is no longer wanted. Trouble is logged; it is no trouble of the current."""
        try:
            found = retention.survey(self._files, current.job)
        except OSError as error:
            _log.warning("cannot look for old checkpoints under %s: %s", self._files.root, error)
            return
        awaited = {each.name for each in self._pending}
        for name in retention.doomed(
            found, current=current, committed=committed, keep=self._keep, awaited=awaited
        ):
            retention.remove(self._files, name)

    def _report(self, name: Name, began: float, error: str, size: int = 0) -> None:
        skipped, self.superseded = self.superseded, 0
        if error:
            error += "; training goes on without it"
        self._on_report(Report(name.step, size, time.monotonic() - began, error, skipped))


def _ranks(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))


def _reasons(pending: _Pending) -> str:
    known = [
        f"rank {rank}: {pending.refused[rank]}"
        for rank in pending.missing
        if rank in pending.refused
    ]
    return f" ({'; '.join(known)})" if known else ""
