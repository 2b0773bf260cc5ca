"""From a planned stretch to what its workers are told. Pure.

Where all tasks train the same and differ only in their compression, the training is a stretch of
its own that comes first: done once, by all workers, and taken up by every task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from shardwise.api.tasks_concrete import concrete
from shardwise.coordinator.report import Assignment, Collect, PoolAssignment, Stretch
from shardwise.sweep import Stretch as Planned

COLLECT, SHARED_TRAINING = "+collect", "+training"
"""Names of what is no task; no task can have them."""
STATE, SHARED = "state", "shared"
"""Folders of states begin with these."""


def key(pool: str, name: str) -> str:
    """The key of a task's group."""
    return f"{pool}/{name}"


def training_is_shared(pool: PoolAssignment) -> bool:
    """Whether all tasks train the same model, to compress it in different ways."""
    tasks, compression = pool.tasks, pool.compression
    listed = tasks.get("list")
    if listed is not None:
        compressions = [item.get("compression") or compression for item in listed]
        same = not any(item.get("parameters") for item in listed)
        several = len(listed) > 1
    else:
        compressions = [compression]
        fields = [parameter.get("field") or "" for parameter in tasks["sweep"]["parameters"]]
        same = all(field.startswith("compression.") for field in fields)
        same = same and not tasks["sweep"].get("earlyStopping")
        several = True
    trains = all(each is not None and not each.get("source") for each in compressions)
    return same and several and trains


def task(pool: PoolAssignment, planned: Planned, workers: int) -> Assignment:
    """What the workers of a task's stretch are told."""
    assigned = planned.assigned if planned.item is None else planned.item
    trainer, compression = concrete(pool.trainer, pool.compression, pool.tasks, assigned)
    state = ""
    if planned.rung or planned.until is not None:
        state = f"tasks/{planned.name}/{STATE}-{pool.pool[:8]}"
    elif training_is_shared(pool):
        state = _shared_state(pool)
    stretch = Stretch(
        pool=pool.pool,
        name=planned.name,
        number=planned.number,
        parameters=dict(planned.assigned),
        until=planned.until,
        state=state,
        objectives=tuple(str(each["metric"]) for each in pool.tasks.get("objectives") or ()),
    )
    return _assignment(pool, trainer, compression, stretch, workers)


def shared_training(pool: PoolAssignment, workers: int) -> Assignment:
    """The training that all tasks have in common, to its end."""
    stretch = Stretch(
        pool=pool.pool,
        name=SHARED_TRAINING,
        number=0,
        until=pool.trainer.get("epochs") or pool.trainer["steps"],
        state=_shared_state(pool),
    )
    return _assignment(pool, pool.trainer, None, stretch, workers)


def collecting(pool: PoolAssignment, collect: Collect) -> Assignment:
    """The last work: to put the tasks' files together."""
    stretch = Stretch(pool=pool.pool, name=COLLECT, number=0, collect=collect)
    return _assignment(pool, pool.trainer, pool.compression, stretch, 1)


def _shared_state(pool: PoolAssignment) -> str:
    text = json.dumps(pool.trainer, sort_keys=True, separators=(",", ":"))
    return f"{SHARED}-{pool.pool[:8]}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _assignment(
    pool: PoolAssignment,
    trainer: Mapping[str, Any],
    compression: Mapping[str, Any] | None,
    stretch: Stretch,
    workers: int,
) -> Assignment:
    return Assignment(
        task=key(pool.pool, stretch.name),
        name=pool.name,
        workers=workers,
        trainer=trainer,
        compression=compression,
        output=pool.output,
        checkpoint=pool.checkpoint,
        report_seconds=pool.report_seconds,
        detection_seconds=pool.detection_seconds,
        gather_seconds=pool.gather_seconds,
        stretch=stretch,
    )
