"""What wrote a checkpoint: other versions may compute other bytes."""

from __future__ import annotations

import torch

import shardwise


def versions() -> dict[str, str]:
    return {"shardwise": shardwise.__version__, "torch": torch.__version__}
