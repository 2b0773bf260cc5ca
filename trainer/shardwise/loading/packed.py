"""Reads the packed weights that `shardwise.compression.packing` writes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from shardwise.regular import UnsafeFileError, read_regular

LARGEST_FILE = 1 << 40
"""Bytes of a weights file; what it unpacks to is bounded by its own size."""
LARGEST_DIMENSION = 1 << 31


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a packed file, as floating-point weights where they were packed.

    What is unpacked is at most 64 times as large as the file: every entry of a weight takes a bit.

    Raises:
        UnsafeFileError: it is no safetensors file, or its parts do not fit together.
        OSError: it cannot be read.
    """
    # The caller names it, so that it may name a link to it.
    return unpacked(file, read_regular(file.resolve(), LARGEST_FILE))


def unpacked(file: Path, data: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a packed file.

    Raises:
        UnsafeFileError: as `read_tensors`.
    """
    try:
        stored = load_tensors(data)
        return _unpacked(stored, json.loads(_metadata(data).get("shardwise", "{}")))
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{file}: {error}; take the file from the job's output again") from (
            error
        )
    except (
        *(SafetensorError, struct.error, ValueError, KeyError, TypeError, AttributeError),
        *(IndexError, RuntimeError, RecursionError, OverflowError),
    ) as error:
        raise UnsafeFileError(
            f"{file}: is no model.safetensors or weights.safetensors of a job: {error}; take the "
            "file from the job's output again"
        ) from error


def _metadata(data: bytes) -> dict[str, str]:
    (size,) = struct.unpack_from("<Q", data)
    found = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    return {str(key): str(value) for key, value in found.items()}


def _unpacked(stored: dict[str, Tensor], layout: Mapping[str, Any]) -> dict[str, Tensor]:
    for name, entry in layout.get("weights", {}).items():
        stored[name] = _weight(stored, name, entry)
    return stored | {alias: stored[name] for alias, name in layout.get("tied", {}).items()}


def _weight(stored: dict[str, Tensor], name: str, entry: Mapping[str, Any]) -> Tensor:
    shape = [_whole(size, f"{name}: shape", LARGEST_DIMENSION) for size in entry["shape"]]
    if not shape:
        raise UnsafeFileError(f"{name}: has no dimensions")
    count, rows = math.prod(shape), shape[0]
    packed = stored.pop(f"{name}.kept", None)
    if packed is not None:
        # Before anything of the shape's size is made: a header alone asks for no memory.
        _fits(name, "kept", packed, -(-count // 8))
        bits = unpack_bits(packed, 1, count)
        kept = bits.view(rows, count // max(rows, 1)).bool()
        remaining = int(kept.sum())
    else:
        kept, remaining = None, count
    if "bits" in entry:
        return _levels(stored, name, entry, kept, remaining, shape)
    found = stored.pop(f"{name}.values")
    _fits(name, "values", found, remaining)
    if kept is None:
        return found.view(shape)
    values = torch.zeros(kept.shape, dtype=found.dtype)
    values[kept] = found
    return values.view(shape)


def _levels(
    stored: dict[str, Tensor],
    name: str,
    entry: Mapping[str, Any],
    kept: Tensor | None,
    remaining: int,
    shape: list[int],
) -> Tensor:
    """Values from levels: (level - zero) * scale, by row and group of columns."""
    count, rows = math.prod(shape), shape[0]
    width = count // max(rows, 1)
    bits = _whole(entry["bits"], f"{name}: bits", 8)
    group = _whole(entry["group"], f"{name}: group", LARGEST_DIMENSION)
    if not (bits and group):
        raise UnsafeFileError(f"{name}: bits {bits} and group {group} must be 1 or more")
    packed = stored.pop(f"{name}.levels")
    _fits(name, "levels", packed, -(-remaining * bits // 8))
    groups = -(-width // group)
    parts = []
    for part in ("scale", "zero"):
        found = stored.pop(f"{name}.{part}")
        if tuple(found.shape) != (rows, groups):
            raise UnsafeFileError(
                f"{name}.{part}: has shape {tuple(found.shape)}, not {(rows, groups)}"
            )
        parts.append(found.float().repeat_interleave(min(group, max(width, 1)), 1)[:, :width])
    scale, zero = parts
    levels = zero.clone()
    found = unpack_bits(packed, bits, remaining).float()
    if kept is None:
        levels = found.view(levels.shape)
    else:
        levels[kept] = found
    values = torch.zeros(levels.shape)
    values[:] = (levels - zero) * scale
    return values.view(shape)


def _fits(name: str, part: str, found: Tensor, count: int) -> None:
    if found.dim() != 1 or found.numel() != count:
        raise UnsafeFileError(f"{name}.{part}: has shape {tuple(found.shape)}, not ({count},)")


def _whole(value: object, what: str, largest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise UnsafeFileError(f"{what} has {value!r}; it must be between 0 and {largest}")
    return value


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """`count` integers of `bits` bits each, lowest bit first: uint8, shape (count,)."""
    table = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little")
    places = (1 << np.arange(bits)).astype(np.uint8)
    return torch.from_numpy((table.reshape(count, bits) * places).sum(1, dtype=np.uint8))
