"""What the coordinator's tests share: a hello with defaults, a task of a given size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shardwise.coordinator.protocol import Hello
from shardwise.coordinator.report import Assignment


@pytest.fixture
def hello() -> Callable[..., Hello]:
    def make(index: int, **changes: Any) -> Hello:
        values: dict[str, Any] = {
            "token": "secret",
            "worker": f"w-{index}",
            "index": index,
            "fingerprint": {"torch": "2.13.0", "threads": 1},
        }
        return Hello(**{**values, **changes})

    return make


@pytest.fixture
def assignment() -> Callable[..., Assignment]:
    def make(workers: int, **changes: Any) -> Assignment:
        values: dict[str, Any] = {
            "task": "default/digits",
            "name": "digits",
            "workers": workers,
            "trainer": {"entrypoint": "digits:task", "batchSize": 64},
        }
        return Assignment(**{**values, **changes})

    return make
