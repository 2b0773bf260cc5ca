"""Hashes of tensors: the same for the same bits, another for any change that happens."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwise.engine.digest import digest

LONG = 40_000
"""Elements: several rows of words, and a rest."""


def of(tensor):
    return digest("title", [("name", tensor)])


@settings(deadline=None)
@given(st.integers(0, 4 * LONG - 1), st.integers(0, 7))
def test_every_bit_counts(byte, bit):
    tensor = torch.arange(LONG, dtype=torch.float32)
    before = of(tensor)
    tensor.view(torch.uint8)[byte] ^= 1 << bit
    assert of(tensor) != before


def test_order_signs_and_places_count():
    tensor = torch.randn(LONG, generator=torch.Generator().manual_seed(0))
    swapped = tensor.clone()
    swapped[[3, 20_001]] = tensor[[20_001, 3]]
    rows = tensor.clone()
    rows[:2048], rows[2048:4096] = tensor[2048:4096], tensor[:2048]
    found = [of(t) for t in (tensor, swapped, rows, tensor.flip(0), -tensor, tensor + 1e-6)]
    assert len(set(found)) == len(found)


def test_names_sizes_and_titles_count():
    tensor = torch.zeros(10)
    found = [
        digest("title", [("name", tensor)]),
        digest("other", [("name", tensor)]),
        digest("title", [("other", tensor)]),
        digest("title", [("name", tensor[:9])]),
        digest("title", [("name", tensor), ("name", tensor)]),
    ]
    assert len(set(found)) == len(found)


def test_where_a_tensor_lies_does_not_count():
    for dtype in (torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool):
        tensor = (torch.randn(LONG + 1) * 5).to(dtype)
        assert of(tensor[1:]) == of(tensor[1:].clone())
    assert of(torch.tensor(3)) == of(torch.tensor([0, 3])[1])
