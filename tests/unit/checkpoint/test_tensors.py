"""Parts are ordinary safetensors files, and come back bit for bit."""

from __future__ import annotations

import dataclasses

import pytest
import safetensors.torch
import torch
from states import same, state

from shardwise.checkpoint.layout import BrokenError
from shardwise.checkpoint.tensors import chunks, decode, encode
from shardwise.engine.snapshot import Snapshot

KINDS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def written(snapshot: Snapshot, *, whole: bool = True) -> bytearray:
    return bytearray(b"".join(chunks(encode(snapshot, whole=whole))))


def test_a_part_comes_back() -> None:
    assert same(decode(written(state(7))), state(7))


def test_only_rank_0_has_what_all_have() -> None:
    piece = decode(written(state(7, 1, 3), whole=False))
    assert piece.tensors == {}
    assert piece.history == b""
    assert piece.part == state(7, 1, 3).part
    assert torch.equal(piece.vectors["parameters"], state(7, 1, 3).vectors["parameters"])


def test_the_safetensors_package_reads_it() -> None:
    snapshot = state(7)
    tensors = safetensors.torch.load(bytes(written(snapshot)))
    for name, vector in snapshot.vectors.items():
        assert torch.equal(tensors[f"vector:{name}"], vector)
    for name, tensor in snapshot.tensors.items():
        assert torch.equal(tensors[f"tensor:{name}"], tensor)
    assert tensors["history"].numpy().tobytes() == snapshot.history


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_types_and_shapes(kind: torch.dtype) -> None:
    numbers = torch.arange(12).to(kind)
    tensors = {
        "one": numbers[1].clone(),
        "odd": numbers[:5].clone(),
        "turned": numbers.reshape(3, 4).T,
        "none": numbers[:0].reshape(0, 3),
    }
    snapshot = dataclasses.replace(state(1), tensors=tensors)
    back = decode(written(snapshot)).tensors
    assert {name: t.shape for name, t in back.items()} == {n: t.shape for n, t in tensors.items()}
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert all(back[name].dtype is kind for name in tensors)


def test_not_a_number_keeps_its_bits() -> None:
    odd = torch.tensor([0x7FC01234, 0x7F800001, -1], dtype=torch.int32).view(torch.float32)
    snapshot = dataclasses.replace(state(1), tensors={"odd": odd})
    assert decode(written(snapshot)).tensors["odd"].numpy().tobytes() == odd.numpy().tobytes()


def test_what_cannot_be_held_is_named() -> None:
    double = dataclasses.replace(state(1), tensors={"x": torch.zeros(2, dtype=torch.complex128)})
    with pytest.raises(ValueError, match=r"'tensor:x' is of torch\.complex128"):
        encode(double, whole=True)
    short = dataclasses.replace(state(1), vectors={"parameters": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"'parameters' .* has shape \(3,\)"):
        encode(short, whole=True)


@pytest.mark.parametrize(
    "data", [b"", b"\x10", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"{}", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_other_bytes_are_no_part(data: bytes) -> None:
    with pytest.raises(BrokenError, match="is no part of a checkpoint"):
        decode(bytearray(data))
