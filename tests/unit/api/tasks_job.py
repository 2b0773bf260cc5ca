"""A job with tasks, for the tests of the API."""

from __future__ import annotations

import copy
from typing import Any

from shardwise.api.types import API_VERSION, KIND

SWEEP: dict[str, Any] = {
    "parameters": [
        {
            "name": "learning_rate",
            "range": {"type": "Float", "min": "0.001", "max": 1, "scale": "Log", "points": 4},
        },
        {"name": "hidden", "values": [32, 64, 128]},
        {"name": "bits", "field": "compression.int8.quantize.bits", "values": [8, 4, 3]},
        {
            "name": "momentum",
            "values": ["0", "0.9"],
            "when": {"parameter": "hidden", "values": [64, 128]},
        },
    ]
}
LIST: list[dict[str, Any]] = [
    {"name": "theta-1", "parameters": {"learning_rate": "0.1"}},
    {"name": "theta-2", "compression": {"steps": [{"name": "half", "prune": {}}]}},
]


def job(tasks: dict[str, Any] | None = None, **trainer: Any) -> dict[str, Any]:
    """A manifest with a compression of two steps; its tasks are `tasks`, or SWEEP."""
    return copy.deepcopy(
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "sweep"},
            "spec": {
                "trainer": {
                    "entrypoint": "shardwise.examples.digits:task",
                    "parameters": {"hidden": 16},
                    "epochs": 10,
                    "batchSize": 64,
                    "shards": 4,
                    **trainer,
                },
                "workers": {"replicas": 8},
                "compression": {
                    "steps": [
                        {"name": "prune", "prune": {}, "fineTune": {"epochs": 1}},
                        {"name": "int8", "quantize": {}},
                    ]
                },
                "tasks": {"sweep": SWEEP} if tasks is None else tasks,
            },
        }
    )


def sweep(*parameters: dict[str, Any], tasks: dict[str, Any] | None = None, **sweep: Any) -> Any:
    """spec.tasks with a sweep over these; `tasks` are fields beside the sweep."""
    return {"sweep": {"parameters": list(parameters), **sweep}, **(tasks or {})}


def floats(least: Any, most: Any, name: str = "rate", **more: Any) -> dict[str, Any]:
    """A parameter with a range of fractions."""
    return {"name": name, "range": {"type": "Float", "min": least, "max": most, **more}}


def integers(least: Any, most: Any, name: str = "width", **more: Any) -> dict[str, Any]:
    """A parameter with a range of integers."""
    return {"name": name, "range": {"type": "Int", "min": least, "max": most, **more}}
