"""The last work of a pool: one table of all tasks, one result.json, and the best one's weights.

tasks.csv             a row a task, whatever became of it
weights.safetensors   the best task's, and what its compression made
result.json           `tasks`, `best`, `pareto`, and the best one's figures as those of the job

What the tasks' own files say goes before what the coordinator remembers, which is less after it
was begun anew.
"""

from __future__ import annotations

import csv
import functools
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shardwise.coordinator import rows
from shardwise.coordinator.report import Collect, TaskRow
from shardwise.regular import open_regular, read_json
from shardwise.worker import output
from shardwise.worker.former import FOLDER, RESULT, TABLE, forget_states

WEIGHTS = "weights.safetensors"
OWN = (RESULT, "history.csv")
"""What a task has besides that is not the job's."""
FIRST = ("name", "state")
BEST = ("name", "parameters", "metrics", "weightsSha256")
LAST = ("steps", "seconds", "workers", "ended", "weightsSha256", "reason", "message")


def collect(base: Path, job: str, pool: str, what: Collect) -> dict[str, Any]:
    """Write the files; the result for the job's status.

    Args:
        base: the job's output folder, with the tasks' folders in it.

    Raises:
        OutputError: the folder cannot be written to.
    """
    table = [_completed(base, pool, row) for row in rows.unpack(what.rows)]
    best = next((row for row in table if row.name == what.best), None)
    try:
        base.mkdir(parents=True, exist_ok=True)
        forget_states(base)
        output.write_aside(base / TABLE, lambda path: _write_csv(table, path))
        weights = None if best is None else _promote(base, best)
        result = {
            "job": job,
            "steps": sum(row.step for row in table),
            "seconds": round(sum(row.seconds for row in table), 3),
            "metrics": {} if best is None else dict(best.metrics),
            "path": str(base),
            "objectives": list(what.objectives),
            "best": None if best is None else _json(best),
            "pareto": list(what.pareto),
            "tasks": [_json(row) for row in table],
        }
        if weights is not None:
            result["weightsSha256"] = weights
        text = json.dumps(result, indent=1) + "\n"
        output.write_aside(base / RESULT, lambda path: _write_text(path, text))
    except OSError as error:
        raise output.OutputError.of(base, error) from error
    return _for_status(result)


def _completed(base: Path, pool: str, row: TaskRow) -> TaskRow:
    """The row with what the task's own result has."""
    try:
        written = read_json(base / FOLDER / row.name / RESULT)
        if row.state != "Succeeded" or written.get("pool") != pool:
            return row
        return replace(
            row,
            metrics=output.figures(written),
            weights_sha256=str(written["weightsSha256"]),
            step=int(written["steps"]),
            seconds=row.seconds or float(written["seconds"]),
            workers=row.workers or int(written["workers"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return row


def _promote(base: Path, best: TaskRow) -> str | None:
    """The best task's weights and artifacts become the job's; the weights' hash, or None where
    they are elsewhere."""
    source = base / FOLDER / best.name
    if not (source / WEIGHTS).exists():
        return None
    for file in sorted(source.iterdir()):
        # A link may lead out of the volume, to what only this pod may read.
        if file.is_file() and not file.is_symlink() and file.name not in OWN:
            output.write_aside(base / file.name, functools.partial(_copy, file))
    return best.weights_sha256


def _copy(source: Path, target: Path) -> None:
    with open_regular(source) as file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def _write_csv(table: Sequence[TaskRow], path: Path) -> None:
    parameters = _names(row.parameters for row in table)
    metrics = _names(row.metrics for row in table)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIRST, *parameters, *metrics, *LAST])
        for row in table:
            cells = _json(row)
            writer.writerow(
                [cells[name] for name in FIRST]
                + [row.parameters.get(name, "") for name in parameters]
                + [row.metrics.get(name, "") for name in metrics]
                + [cells[name] for name in LAST]
            )


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys, in the order in which they come up first."""
    return list(dict.fromkeys(name for each in mappings for name in each))


def _json(row: TaskRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "state": row.state,
        "parameters": dict(row.parameters),
        "metrics": dict(row.metrics),
        "weightsSha256": row.weights_sha256,
        "steps": row.step,
        "seconds": row.seconds,
        "workers": row.workers,
        "ended": row.ended,
        "reason": row.reason,
        "message": row.message,
    }


def _for_status(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result as status.result has it, and what status.tasks came to: an operator that was
    away knows of no more than the last tasks that it wrote down."""
    states = Counter(row["state"] for row in result["tasks"])
    told = {
        "tasks": {state.lower(): states[state] for state in ("Succeeded", "Failed", "Stopped")},
        "steps": result["steps"],
        "metrics": [{"name": k, "value": f"{v:.6g}"} for k, v in result["metrics"].items()],
        "seconds": f"{result['seconds']:.1f}",
        "path": result["path"],
    }
    if "weightsSha256" in result:
        told["weightsSha256"] = result["weightsSha256"]
    if result["best"] is not None:
        told["best"] = {key: result["best"][key] for key in BEST}
    return told
