"""What a sweep has come to, in few bytes: what a new coordinator goes on from.

Pure. A record has, by a stretch's number, whether it was begun, ended or failed, and the values
it ended with. All else follows from the spec.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LENGTH = 65_536
"""The most characters of a record."""
_VERSION = 1
_HEADER = struct.Struct("<BIIBB")
_BYTES = LENGTH // 4 * 3 - _HEADER.size - 64  # What zlib may add to what it cannot make smaller.
_FULL_BITS = 32
_FEWEST_BITS = 16  # float32's sign and exponent, and 7 bits of its fraction: to 0.4 %.
_OPEN, _ENDED, _FAILED = 0, 1, 2
_STATE_BITS = 2

Values = tuple[float, ...]


def most_stretches(trials: int, rungs: int, factor: int) -> int:
    """How many stretches an early stopping sweep may have, so that a record can hold them: all
    that there can be, as long as their values fit whole; or else a quarter more than there are
    where each rung promotes the part that it should, or what fits roughly.

    Args:
        trials: how many trials there are, 10,000 at most.
        rungs: how many rungs.
        factor: of how many results at a rung one is promoted.
    """
    usual = sum(int(trials // factor**rung) for rung in range(rungs + 1))
    whole, rough = (_BYTES * 8 // (bits + _STATE_BITS) for bits in (_FULL_BITS, _FEWEST_BITS))
    return min(trials * (rungs + 1), max(whole, usual * 5 // 4), rough)


class RecordError(ValueError):
    """A record that is damaged, or of another spec, or of another version of the software."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How exactly values are kept: float32's upper `bits`, so that the record stays in `LENGTH`
    whatever the values are."""

    bits: int

    @classmethod
    def of(cls, stretches: int, objectives: int) -> Precision:
        """The precision for the most stretches that there can be."""
        if not stretches or not objectives:
            return cls(_FULL_BITS)
        return cls(min(_FULL_BITS, (_BYTES * 8 // stretches - _STATE_BITS) // objectives))

    def round(self, value: float) -> float:
        """The nearest value that a record can hold; one beyond float32 is infinite."""
        try:
            packed = struct.pack("<f", value)
        except OverflowError:
            packed = struct.pack("<f", math.copysign(math.inf, value))
        (whole,) = struct.unpack("<I", packed)
        dropped = _FULL_BITS - self.bits
        if dropped and math.isfinite(value):
            # Up by half of what is dropped; a carry goes into the exponent as it should.
            whole = (whole + (1 << (dropped - 1))) >> dropped << dropped
        (rounded,) = struct.unpack("<f", struct.pack("<I", whole))
        return float(rounded)


@dataclass(frozen=True, slots=True)
class Record:
    """Contents of a record.

    Args:
        begun: how many stretches were begun: those of the numbers below.
        results: of those that ended, by number: the objectives, or None where it failed.
        check: a checksum of what the algorithm suggested, to notice another version's.
    """

    begun: int
    results: Mapping[int, Values | None]
    check: int = 0

    def encode(self, precision: Precision, objectives: int) -> str:
        """As text of at most `LENGTH` characters, given that values were rounded."""
        states = []
        words = []
        for number in range(self.begun):
            if number not in self.results:
                states.append(_OPEN)
                continue
            values = self.results[number]
            states.append(_FAILED if values is None else _ENDED)
            words += [struct.unpack("<I", struct.pack("<f", v))[0] for v in values or ()]
        header = _HEADER.pack(_VERSION, self.check, self.begun, objectives, precision.bits)
        body = [header, _pack(states, _STATE_BITS)]
        shift = _FULL_BITS
        for width in _planes(precision.bits):
            shift -= width
            body.append(_pack((word >> shift & (1 << width) - 1 for word in words), width))
        return base64.b64encode(zlib.compress(b"".join(body), 9)).decode()

    @classmethod
    def decode(cls, text: str, precision: Precision, objectives: int) -> Record:
        """What `encode` wrote.

        Raises:
            RecordError: it was not written for this spec, or is damaged.
        """
        try:
            data = zlib.decompress(base64.b64decode(text, validate=True))
            version, check, begun, wide, bits = _HEADER.unpack_from(data)
        except (binascii.Error, zlib.error, struct.error, ValueError) as error:
            raise RecordError(f"the record of the tasks is damaged: {error}") from None
        if (version, wide, bits) != (_VERSION, objectives, precision.bits):
            raise RecordError(
                f"the record of the tasks is of another spec or version: version {version}, "
                f"{wide} objectives of {bits} bits; expected version {_VERSION}, "
                f"{objectives} of {precision.bits}"
            )
        reader = _Reader(data, _HEADER.size)
        states = reader.read(begun, _STATE_BITS)
        count = states.count(_ENDED) * objectives
        words = [0] * count
        shift = _FULL_BITS
        for width in _planes(bits):
            shift -= width
            plane = reader.read(count, width)
            words = [word | part << shift for word, part in zip(words, plane, strict=True)]
        values = iter(struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *words)))
        results: dict[int, Values | None] = {}
        for number, state in enumerate(states):
            if state == _ENDED:
                results[number] = tuple(next(values) for _ in range(objectives))
            elif state == _FAILED:
                results[number] = None
        return cls(begun, results, check)


def _planes(bits: int) -> list[int]:
    """The widths of the parts that words are cut into, from the top: like bytes lie side by side
    then, which zlib makes smaller."""
    return [8] * (bits // 8) + ([bits % 8] if bits % 8 else [])


def _pack(items: Iterable[int], width: int) -> bytes:
    if width == 8:
        return bytes(items)
    digits = "".join(format(item, f"0{width}b") for item in items)
    size = -(-len(digits) // 8)
    return int(digits.ljust(size * 8, "0") or "0", 2).to_bytes(size, "big")


class _Reader:
    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._at = data, start

    def read(self, count: int, width: int) -> Sequence[int]:
        size = -(-count * width // 8)
        part = self._data[self._at : self._at + size]
        if len(part) < size:
            raise RecordError("the record of the tasks is damaged: it ends too early")
        self._at += size
        if width == 8:
            return part
        digits = format(int.from_bytes(part, "big"), f"0{size * 8}b")
        return [int(digits[at : at + width], 2) for at in range(0, count * width, width)]
