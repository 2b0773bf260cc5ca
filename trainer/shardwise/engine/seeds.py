"""Seeds that follow from what they are for, and from nothing else.

Every random choice has a name made of the job's seed and its place (an epoch; a step and a
shard), so it comes out the same on whichever worker it is made, and however often.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive(seed: int, purpose: str, *place: int) -> int:
    """A seed in [0, 2**63) for one purpose at one place."""
    text = "/".join((str(seed), purpose, *map(str, place)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_everything(value: int) -> None:
    """Seed the generators that user code may draw from: torch's, NumPy's legacy one, `random`."""
    torch.manual_seed(value)
    np.random.seed(value & 0xFFFF_FFFF)
    random.seed(value)
