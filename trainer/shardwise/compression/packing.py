"""How tensors lie in an artifact: integers of any width without a gap, pruned ones left out.

A weight `w` is stored as one of
    w                   as it is
    w.kept, w.values    a bit for each entry, and the entries that are not zero, in order; also of
                        integers, which are pruned where their weights were
    w.levels, w.scale, w.zero [, w.kept]
                        levels of `bits` bits each, lowest bit first; of kept entries only, where
                        there is `w.kept`; value = (level - zero) · scale by row and group
and the file's metadata tells shapes, bits and group sizes. Reading it is `shardwise.loading`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from shardwise.compression.subject import Subject

METADATA = "shardwise"


def pack_bits(levels: Tensor, bits: int) -> Tensor:
    """Levels below 2**bits (uint8, any shape) in a row: uint8, shape (ceil(n * bits / 8),)."""
    flat = levels.reshape(-1).numpy()
    table = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return torch.from_numpy(np.packbits(table.reshape(-1), bitorder="little"))


def pack(subject: Subject, tensors: Mapping[str, Tensor], tied: Mapping[str, str]) -> bytes:
    """The artifact's bytes: the given tensors, as small as their masks and levels make them.

    Args:
        tied: further names of stored tensors.
    """
    stored: dict[str, Tensor] = {}
    layout: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        quantized = subject.quantized.get(name)
        if quantized is not None:
            entry: dict[str, Any] = {
                "shape": list(tensor.shape),
                "bits": quantized.grid.bits,
                "group": quantized.grid.group_size,
            }
            levels = quantized.levels
            kept = quantized.values() != 0
            if not _worth_leaving_out(kept, quantized.grid.bits):
                stored[f"{name}.levels"] = pack_bits(levels, quantized.grid.bits)
            else:
                stored[f"{name}.levels"] = pack_bits(levels[kept], quantized.grid.bits)
                stored[f"{name}.kept"] = pack_bits(kept.to(torch.uint8), 1)
            stored[f"{name}.scale"] = quantized.grid.scale.contiguous()
            stored[f"{name}.zero"] = quantized.grid.zero.contiguous()
            layout[name] = entry
            continue
        kept = _not_zero(tensor)
        if tensor.dim() > 1 and _worth_leaving_out(kept, 8 * tensor.element_size()):
            stored[f"{name}.kept"] = pack_bits(kept.to(torch.uint8), 1)
            stored[f"{name}.values"] = tensor[kept].clone()
            layout[name] = {"shape": list(tensor.shape)}
        else:
            stored[name] = tensor.detach().clone().contiguous()
    text = json.dumps({"weights": layout, "tied": dict(tied)}, sort_keys=True)
    # One key only: safetensors writes several in no fixed order.
    return save(stored, {METADATA: text})


def _not_zero(tensor: Tensor) -> Tensor:
    """Where a tensor has anything else than +0, which is what reading it puts there."""
    found = tensor != 0
    return found | tensor.signbit() if tensor.is_floating_point() else found


def _worth_leaving_out(kept: Tensor, bits: int) -> bool:
    return (int(kept.sum()) * bits + kept.numel()) < kept.numel() * bits
