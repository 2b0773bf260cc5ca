"""What an earlier run has left in an output folder, and how it goes away. Light: the parent of
local workers uses it too.

result.json says that all that it names is there, and of this run: so it goes before anything
else is written. States that a pool kept of its tasks, or computed for all of them, are of no use
to another pool: their names have its key.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from shardwise.coordinator.pool_stretches import SHARED, STATE

FOLDER = "tasks"
RESULT, TABLE = "result.json", "tasks.csv"
TOLD = (RESULT, TABLE, "history.csv", "curve.png")


def forget_results(base: Path) -> None:
    """Remove what an earlier run tells of itself; its weights stay until there are new ones.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in TOLD:
        (base / name).unlink(missing_ok=True)


def forget_states(base: Path, but: str = "") -> None:
    """Remove the states that pools have kept.

    Args:
        but: the key of the pool whose states stay; empty: none do.
    """
    found = (*base.glob(f"{SHARED}-*"), *base.glob(f"{FOLDER}/*/{STATE}-*"))
    for folder in found:
        if not but or not folder.name.endswith(f"-{but[:8]}"):
            shutil.rmtree(folder, ignore_errors=True)
