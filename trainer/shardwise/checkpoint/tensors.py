"""A rank's part as a safetensors file: out of a snapshot, and back into one.

Written here and not by the safetensors package for one reason: it makes a copy of everything
first, and the snapshot is a copy already. What is written is read by that package as by any other
(the tests do). Reading makes no copy either: the tensors lie in the bytes that were verified.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from shardwise.checkpoint.layout import BrokenError
from shardwise.engine.snapshot import Snapshot

_CHUNK = 4 << 20
"""Bytes between two looks at whether to stop; large enough for full speed."""
_HISTORY = "history"
_VECTOR = "vector:"
_TENSOR = "tensor:"

_TYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "C64": torch.complex64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F32": torch.float32,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {kind: code for code, kind in _TYPES.items()}


def encode(snapshot: Snapshot, *, whole: bool) -> list[memoryview]:
    """The bytes of a part, as pieces of memory that are the snapshot's own.

    Args:
        snapshot: what to write; it must not change until the pieces are written.
        whole: with the buffers and the history, which are the same on all ranks.

    Raises:
        ValueError: a tensor is of a type that safetensors files cannot hold, or no vector of the
            snapshot's part.
    """
    tensors: dict[str, Tensor] = {}
    extent = snapshot.part.stop - snapshot.part.start
    for name, vector in snapshot.vectors.items():
        if vector.shape != (extent,):
            raise ValueError(
                f"vector {name!r} of the snapshot has shape {tuple(vector.shape)}, not ({extent},)"
            )
        tensors[_VECTOR + name] = vector
    if whole:
        tensors |= {_TENSOR + name: tensor for name, tensor in snapshot.tensors.items()}
        tensors[_HISTORY] = torch.tensor(bytearray(snapshot.history), dtype=torch.uint8)
    # The widest first, so that each tensor is aligned to its own type.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, object] = {"__metadata__": _metadata(snapshot)}
    pieces, offset = [], 0
    for name, tensor in ordered:
        if tensor.dtype not in _CODES:
            raise ValueError(f"{name!r} is of {tensor.dtype}, which safetensors files cannot hold")
        piece = _memory(tensor)
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(piece)],
        }
        offset += len(piece)
        pieces.append(piece)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(struct.pack("<Q", len(text)) + text), *pieces]


def decode(data: bytearray) -> Snapshot:
    """The snapshot that a part holds; its tensors lie in `data`.

    Raises:
        BrokenError: the bytes are no part of a checkpoint.
    """
    try:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(bytes(data[8 : 8 + size]))
        said = header.pop("__metadata__")
        tensors = {name: _tensor(data, 8 + size, entry) for name, entry in header.items()}
        history = tensors.pop(_HISTORY, torch.empty(0, dtype=torch.uint8))
        return Snapshot(
            step=int(said["step"]),
            evaluated=int(said["evaluated"]),
            length=int(said["length"]),
            part=slice(int(said["start"]), int(said["stop"])),
            vectors=_named(tensors, _VECTOR),
            tensors=_named(tensors, _TENSOR),
            history=history.numpy().tobytes(),
        )
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise BrokenError(f"is no part of a checkpoint: {error}") from error


def chunks(pieces: list[memoryview]) -> Iterator[memoryview]:
    """The pieces cut into what one write takes."""
    for piece in pieces:
        for start in range(0, len(piece), _CHUNK):
            yield piece[start : start + _CHUNK]


def _metadata(snapshot: Snapshot) -> dict[str, str]:
    numbers = {
        "step": snapshot.step,
        "evaluated": snapshot.evaluated,
        "length": snapshot.length,
        "start": snapshot.part.start,
        "stop": snapshot.part.stop,
    }
    return {name: str(number) for name, number in numbers.items()}


def _memory(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if len(flat) else memoryview(b"")


def _tensor(data: bytearray, base: int, entry: Mapping[str, object]) -> Tensor:
    kind, shape = _TYPES[str(entry["dtype"])], torch.Size(entry["shape"])  # type: ignore[arg-type]
    start, stop = entry["data_offsets"]  # type: ignore[misc]
    if stop - start != shape.numel() * kind.itemsize or base + stop > len(data):  # type: ignore[has-type]
        raise ValueError(f"shape {list(shape)} does not fit bytes {start} to {stop}")  # type: ignore[has-type]
    if not shape.numel():
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(
        data,
        dtype=kind,
        count=shape.numel(),
        offset=base + start,  # type: ignore[has-type]
    ).view(shape)


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
