"""What a worker process has of its own, whatever its task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardwise.coordinator.report import Stretch
from shardwise.worker.faults import Faults
from shardwise.worker.metrics import WorkerMetrics
from shardwise.worker.settings import Settings

if TYPE_CHECKING:
    from shardwise.compression.sharing import Shared, Store

STATISTICS = "statistics"


@dataclass(kw_only=True)
class Process:
    """What stays from one task to the next."""

    settings: Settings
    metrics: WorkerMetrics
    faults: Faults
    on_ready: Callable[[], object]
    """Called once a task is loaded."""
    _store: Store | None = field(default=None, init=False)

    def shared(self, trainer: Mapping[str, Any], output: Path, stretch: Stretch) -> Shared:
        """Where the statistics of this pool's tasks are kept.

        Args:
            trainer: spec.trainer of the task: its samples follow from it.
        """
        # Loaded here: most jobs compress nothing.
        from shardwise.compression.sharing import Shared, Store

        if self._store is None:
            self._store = Store()
        folder = output / stretch.state.partition("/")[0] / STATISTICS if stretch.state else None
        return Shared(self._store, json.dumps(trainer, sort_keys=True), folder)
