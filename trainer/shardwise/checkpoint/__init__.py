"""Checkpoints: sharded over the workers, committed at once or not at all, verified on reading.

checkpointer = Checkpointer("/checkpoints", identity=..., keep=3, on_report=print)
checkpointer.save(snapshot, rank=rank, size=size, generation=generation)   # returns at once
snapshot = newest("/checkpoints", identity)                     # whole, for any group size
"""

from __future__ import annotations

from shardwise.checkpoint.checkpointer import Checkpointer
from shardwise.checkpoint.reader import Listed, listing, newest
from shardwise.checkpoint.remedy import CheckpointError
from shardwise.checkpoint.saver import Report

__all__ = ["CheckpointError", "Checkpointer", "Listed", "Report", "listing", "newest"]
