"""What one task of a pool trains: spec.trainer and spec.compression with the task's own values.

Pure; JSON in, JSON out. Used by the coordinator, and by `tasks_check` to look at every value
before anything runs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

PLACES: Final = Decimal("1e-9")
"""Fractions of the spec have at most nine decimal places."""


def concrete(
    trainer: Mapping[str, Any],
    compression: Mapping[str, Any] | None,
    tasks: Mapping[str, Any],
    assigned: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """spec.trainer and spec.compression of one task, as a job of its own would have them.

    Args:
        trainer: spec.trainer.
        compression: spec.compression.
        tasks: spec.tasks.
        assigned: where spec.tasks has a list, one of its items; else the values of the sweep's
            parameters, by name. A fraction for a field of the compression is rounded to nine
            decimal places, the most that such a field has.

    Raises:
        KeyError: `assigned` or a `field` names what is not there; `tasks_check` refuses such jobs.
    """
    own_trainer = copy.deepcopy(dict(trainer))
    own_compression = None if compression is None else copy.deepcopy(dict(compression))
    sweep = tasks.get("sweep")
    if sweep is None:
        own_trainer["parameters"] = trainer.get("parameters", {}) | assigned.get("parameters", {})
        own = assigned.get("compression")
        return own_trainer, own_compression if own is None else copy.deepcopy(own)
    swept = {parameter["name"]: parameter for parameter in sweep["parameters"]}
    arguments = {}
    for name, value in assigned.items():
        field = swept[name].get("field")
        if field is None:
            arguments[name] = value
        elif field.startswith("trainer."):
            own_trainer[field.partition(".")[2]] = value
        else:
            _set(own_compression or {}, field, _decimal(swept[name], value))
    own_trainer["parameters"] = trainer.get("parameters", {}) | arguments
    return own_trainer, own_compression


def _set(compression: dict[str, Any], field: str, value: int | str) -> None:
    _, step, *parents, last = field.split(".")
    node = next((found for found in compression.get("steps", ()) if found["name"] == step), None)
    if node is None:
        raise KeyError(step)
    for name in parents:
        node = node[name]
    node[last] = value


def _decimal(parameter: Mapping[str, Any], value: int | str) -> int | str:
    if (parameter.get("range") or {}).get("type") != "Float":
        return value
    rounded = Decimal(value).quantize(PLACES)
    return format(rounded, "f").rstrip("0").rstrip(".")
