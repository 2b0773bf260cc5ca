"""Which weights go: from scores and sparsities to masks. Pure; ties go by place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from shardwise.compression.solve import lowest, two_of_four

Scope = Literal["global", "uniform"]


def masks_of(
    scores: Mapping[str, Tensor],
    sparsity: float,
    *,
    scope: Scope,
    layers: Mapping[str, float],
) -> dict[str, Tensor]:
    """What is kept of each weight: bool, the shape of its scores.

    Args:
        sparsity: the part of all weights that goes (global), or of each weight's (uniform).
        layers: the part of single weights by name; they take no part in a global choice.
    """
    kept = {name: lowest(layers[name])(scores[name]) for name in scores if name in layers}
    rest = {name: score for name, score in scores.items() if name not in layers}
    if scope == "uniform":
        kept |= {name: lowest(sparsity)(score) for name, score in rest.items()}
    elif rest:
        flat = torch.cat([score.reshape(-1) for score in rest.values()])
        chosen = torch.split(lowest(sparsity)(flat), [score.numel() for score in rest.values()])
        kept |= {
            name: part.view_as(score)
            for (name, score), part in zip(rest.items(), chosen, strict=True)
        }
    return {name: kept[name] for name in scores}


def two_of_four_masks(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """2:4 masks: of every four neighbouring inputs of an output, the two of greatest score."""
    return {name: two_of_four(score) for name, score in scores.items()}


def cubic(step: int, steps: int, final: float, initial: float = 0.0) -> float:
    """The sparsity at `step` of a gradual schedule (Zhu and Gupta 2017, equation 1)."""
    share = min(1.0, step / steps) if steps else 1.0
    return final + (initial - final) * (1.0 - share) ** 3
