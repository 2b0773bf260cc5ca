"""The names and documents of a checkpoint. Pure: nothing here touches a file.

    LOCATION/
      step-0000000200-g5-w4-1f0c9a2b/       step, generation, workers, job (see `Name`)
        part-00000-<hash>.safetensors       rank 0's part, named by its content
        part-00000.json                     its Sidecar: this part is complete
        ...
        manifest.json                       the Manifest: the checkpoint is committed

Sidecar and manifest are sealed: they hold a hash of themselves, so that a flipped bit in a number
is noticed like one in the tensors. Parts are named by their content, so that no part is ever
overwritten by another: a directory that is written a second time, after all was lost, stays whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT = 1
"""Version of what the files hold. A reader refuses any other."""
MANIFEST = "manifest.json"
DOCUMENT_BYTES = 16 << 20
"""The most that a manifest or sidecar is read of: a manifest of 10,000 workers has about 2 MB."""

_NAME = re.compile(r"step-(\d{10,})-g(\d+)-w(\d+)-([0-9a-f]{8})")
_OURS = re.compile(r"manifest\.json|part-\d{5,}(-[0-9a-f]{16}\.safetensors|\.json)")

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class BrokenError(Exception):
    """A file of a checkpoint is not what it should be; the message says in what."""


@dataclass(frozen=True, order=True)
class Name:
    """A checkpoint's directory: newer ones compare greater.

    Attributes:
        job: eight hex digits made from the job's identity, so that two jobs with one location
            neither collide nor remove each other's checkpoints.
    """

    step: int
    generation: int
    workers: int
    job: str

    @classmethod
    def of(cls, *, step: int, generation: int, workers: int, identity: str) -> Self:
        return cls(step, generation, workers, job_digits(identity))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The name that a directory has; None where it is no checkpoint's."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        step, generation, workers, job = match.groups()
        name = cls(int(step), int(generation), int(workers), job)
        return name if str(name) == text else None

    def __str__(self) -> str:
        return f"step-{self.step:010d}-g{self.generation}-w{self.workers}-{self.job}"


def job_digits(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def part_file(rank: int, sha256: str) -> str:
    return f"part-{rank:05d}-{sha256[:16]}.safetensors"


def sidecar_file(rank: int) -> str:
    return f"part-{rank:05d}.json"


def is_ours(name: str) -> bool:
    """Whether a file in a checkpoint's directory is one that this package writes.

    A file that is written aside begins with a point and its final name.
    """
    return _OURS.fullmatch(name.removeprefix(".").split(".tmp-")[0]) is not None


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def seal(self) -> bytes:
        """The document as JSON with a hash of itself."""
        body = self.model_dump(mode="json")
        return (json.dumps({"seal": _hash(body), **body}, indent=1) + "\n").encode()

    @classmethod
    def unseal(cls, data: bytes) -> Self:
        """The document.

        Raises:
            BrokenError: the bytes are not those that were written, or not of this format.
        """
        try:
            body = json.loads(data)
            if not isinstance(body, dict):
                raise BrokenError("is no JSON object")
            if body.pop("seal", None) != _hash(body):
                raise BrokenError("does not match the hash that it holds: it was changed")
            # Through JSON again: in its strict mode pydantic takes a list for a tuple there only.
            return cls.model_validate_json(json.dumps(body))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise BrokenError(
                f"is not of format {FORMAT}, which this version of Shardwise reads: "
                f"{place}: {first['msg']}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise BrokenError(f"is no JSON: {error}") from error


class Part(_Document):
    """One rank's part: elements [start, stop) of every vector."""

    rank: Count
    sha256: Hash
    bytes: Count
    start: Count
    stop: Count

    @property
    def file(self) -> str:
        return part_file(self.rank, self.sha256)


class Sidecar(_Document):
    """What a rank leaves beside its part: the part, or the error that kept it from being written.

    Attributes:
        versions: of what wrote it. Rank 0 commits parts of its own versions only: others give
            other bytes.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    identity: str
    versions: dict[str, str]
    part: Part | None = None
    error: str = ""


class Manifest(_Document):
    """What a committed checkpoint consists of.

    Attributes:
        length: elements of every vector, all parts together.
        at: when it was committed, ISO 8601, UTC.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    identity: str
    step: Count
    generation: Count
    evaluated: Count
    length: Count
    parts: tuple[Part, ...]
    versions: dict[str, str]
    at: str

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    def check(self, name: Name) -> None:
        """Raise BrokenError unless the parts make up the whole, and this is the named one's."""
        if (self.step, self.generation, len(self.parts)) != (
            name.step,
            name.generation,
            name.workers,
        ):
            raise BrokenError(
                f"is of step {self.step}, generation {self.generation}, {len(self.parts)} workers: "
                f"not of {name}"
            )
        if [part.rank for part in self.parts] != list(range(len(self.parts))):
            raise BrokenError(f"lists parts of ranks {[part.rank for part in self.parts]}")
        if not tiles(((part.start, part.stop) for part in self.parts), self.length):
            raise BrokenError(f"lists parts that do not make up [0, {self.length}) together")


def tiles(pieces: Iterable[tuple[int, int]], length: int) -> bool:
    """Whether the pieces [start, stop) cover [0, length) without gap or overlap."""
    end = 0
    for start, stop in sorted(pieces):
        if start != end or stop < start:
            return False
        end = stop
    return end == length


def _hash(body: Any) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
