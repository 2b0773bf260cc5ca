"""Hashes of tensors: of the state, so that members can check that they agree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

_ROW = 1024
_SMALL = 1 << 16
"""Bytes up to which a tensor is hashed as it is."""


def digest(title: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """32 hexadecimal digits that follow from the title and the tensors' names, sizes and bits.

    Of a long tensor, its 8-byte words in rows of 1024, only each row's and each column's sum
    (modulo 2**64) is hashed: a change of any one word shows in both, and one of several can hide
    only if its differences cancel in every row and every column. It tells states apart that went
    different ways or were damaged; it is no defence against one that was made to collide.
    """
    hasher = hashlib.blake2b(title.encode(), digest_size=16)
    for name, tensor in tensors:
        data = tensor.detach().contiguous().view(-1).view(torch.uint8)
        hasher.update(f"\0{name}\0{data.numel()}\0".encode())
        if data.numel() > _SMALL:
            if data.data_ptr() % 8:  # a view into another tensor; words have to be aligned
                data = data.clone()
            rest = data.numel() % (8 * _ROW)
            words = data[: data.numel() - rest].view(torch.int64).view(-1, _ROW)
            hasher.update(words.sum(dim=0).numpy().data)
            hasher.update(words.sum(dim=1).numpy().data)
            data = data[data.numel() - rest :]
        hasher.update(data.numpy().data)
    return hasher.hexdigest()
