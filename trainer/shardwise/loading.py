"""Opens a compressed model: needs torch, safetensors and NumPy, and none of the training code.

model = shardwise.load("out/compressed")      # the folder that a job wrote
logits = model(images)
"""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a packed file, as floating-point weights where they were packed."""
    with safe_open(file, "pt") as opened:
        layout = json.loads((opened.metadata() or {}).get("shardwise", "{}"))
        stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    weights, tied = layout.get("weights", {}), layout.get("tied", {})
    for name, entry in weights.items():
        shape, rows = entry["shape"], entry["shape"][0]
        kept = torch.ones(rows, int(np.prod(shape[1:])), dtype=torch.bool)
        if (packed := stored.pop(f"{name}.kept", None)) is not None:
            kept = unpack_bits(packed, 1, kept.numel()).view_as(kept).bool()
        values = torch.zeros(kept.shape)
        if "bits" in entry:  # value = (level - zero) * scale, by row and group of columns
            scale, zero = (
                stored.pop(f"{name}.{part}").float().repeat_interleave(entry["group"], 1)
                for part in ("scale", "zero")
            )
            width = kept.shape[1]
            levels = zero[:, :width].clone()
            packed = stored.pop(f"{name}.levels")
            levels[kept] = unpack_bits(packed, entry["bits"], int(kept.sum())).float()
            values = (levels - zero[:, :width]) * scale[:, :width]
        else:
            found = stored.pop(f"{name}.values")
            values = values.to(found.dtype)
            values[kept] = found
        stored[name] = values.view(shape)
    return stored | {alias: stored[name] for alias, name in tied.items()}


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """`count` integers of `bits` bits each, lowest bit first: uint8, shape (count,)."""
    table = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little")
    places = (1 << np.arange(bits)).astype(np.uint8)
    return torch.from_numpy((table.reshape(count, bits) * places).sum(1, dtype=np.uint8))


def load(folder: str | Path) -> torch.nn.Module:
    """The model of a folder with `model.safetensors` and `graph.pt2.gz`, ready to be called.

    Raises:
        FileNotFoundError: the folder has no such files.
    """
    import torch.ao.quantization.fx._decomposed

    data = gzip.decompress(Path(folder, "graph.pt2.gz").read_bytes())
    program = torch.export.load(io.BytesIO(data))
    model: Any = program.module(check_guards=False)
    model.load_state_dict(read_tensors(Path(folder, "model.safetensors")), assign=True)
    loaded: torch.nn.Module = model.requires_grad_(False)
    return loaded
