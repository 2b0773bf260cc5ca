"""The tasks of a job in one form, whether a status tells of them or a result.json. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shardwise.cli.view.fields import Object, items, name, number, pick, text

STATES = ("Running", "Pending", "Succeeded", "Stopped", "Failed")
COUNTS = ("pending", "running", "succeeded", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure by which tasks are compared."""

    metric: str
    least: bool
    """Whether less of it is better."""

    def cost(self, row: Row) -> float:
        """What is to be small; infinite where the task has no such figure."""
        value = row.metrics.get(self.metric, math.nan)
        return math.inf if math.isnan(value) else value if self.least else -value


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task."""

    name: str
    state: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights: str = ""
    """The SHA-256 of its weights."""
    step: float = 0
    total: float = 0
    """Its updates; 0: not known."""
    seconds: float | None = None
    workers: str = ""
    ended: float = 0
    """Its place in the order in which tasks ended, from 1; 0: not known."""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """The tasks of one job."""

    job: str
    rows: tuple[Row, ...]
    counts: Mapping[str, int]
    """How many are pending, running, succeeded, stopped and failed."""
    total: int
    objectives: tuple[Objective, ...] = ()
    best: Row | None = None
    pareto: tuple[str, ...] = ()
    """Names of the tasks on the front, where there are several objectives."""
    utilization: str = ""

    @property
    def ended(self) -> int:
        return sum(self.counts.get(key, 0) for key in ("succeeded", "stopped", "failed"))

    @property
    def parameters(self) -> list[str]:
        return _names(row.parameters for row in self.rows)

    @property
    def metrics(self) -> list[str]:
        """Figures that some task has, the objectives first."""
        first = [each.metric for each in self.objectives]
        found = _names(row.metrics for row in self.rows)
        return [*first, *(each for each in found if each not in first)]


def of_job(job: Object) -> Tasks | None:
    """What the job's status says of its tasks; None: it has no tasks, or none are told of yet."""
    status = pick(job, "status.tasks")
    if not isinstance(status, Mapping):
        return None
    best = pick(status, "best")
    told = items(status, "items")
    # Those that ended stand there the newest first.
    found = [replace(_row(row), ended=len(told) - n) for n, row in enumerate(told)]
    found += [_row(row) for row in items(status, "pareto")]
    whole = Row(**_told(best)) if isinstance(best, Mapping) and best.get("name") else None
    rows = {row.name: row for row in reversed([*found, *([whole] if whole else [])])}
    counts = {key: int(number(status, key) or 0) for key in COUNTS}
    return Tasks(
        job=name(job),
        rows=tuple(reversed(rows.values())),
        counts=counts,
        total=int(number(status, "total") or sum(counts.values())),
        objectives=objectives(items(job, "spec.tasks.objectives")),
        best=whole,
        pareto=tuple(text(row, "name") for row in items(status, "pareto")),
        utilization=text(status, "utilization"),
    )


def of_result(result: Mapping[str, Any]) -> Tasks:
    """What a pool's result.json says."""
    rows = tuple(_row(row) for row in items(result, "tasks"))
    counts = {key: sum(row.state.lower() == key for row in rows) for key in COUNTS}
    best, compared = text(result, "best.name"), objectives(items(result, "objectives"))
    return Tasks(
        job=text(result, "job"),
        rows=rows,
        counts=counts,
        total=len(rows),
        objectives=compared,
        best=next((row for row in rows if row.name == best), None),
        pareto=tuple(map(str, pick(result, "pareto") or ())) if len(compared) > 1 else (),
    )


def objectives(found: Iterable[Object]) -> tuple[Objective, ...]:
    return tuple(
        Objective(text(each, "metric"), text(each, "direction") == "Minimize") for each in found
    )


def _row(found: Object) -> Row:
    return Row(**_told(found))


def _told(found: Object) -> dict[str, Any]:
    """The fields of a row, as a status has them, with lists and texts, or a result.json."""
    parameters, metrics = pick(found, "parameters") or {}, pick(found, "metrics") or {}
    pairs: Any = metrics.items() if isinstance(metrics, Mapping) else _pairs(metrics)
    figures = {key: value for key, each in pairs if (value := _figure(each)) is not None}
    own: Any = parameters.items() if isinstance(parameters, Mapping) else _pairs(parameters)
    return {
        "name": text(found, "name"),
        "state": text(found, "state") or "Pending",
        "parameters": {str(key): str(value) for key, value in own},
        "metrics": figures,
        "weights": text(found, "weightsSha256"),
        "step": number(found, "step") or number(found, "steps") or 0,
        "total": number(found, "totalSteps") or 0,
        "seconds": number(found, "seconds"),
        "workers": text(found, "workers"),
        "ended": number(found, "ended") or 0,
        "reason": text(found, "reason"),
        "message": text(found, "message"),
    }


def _pairs(found: Any) -> list[tuple[str, Any]]:
    return [(text(each, "name"), pick(each, "value")) for each in found]


def _figure(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _names(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys, in the order in which they come up first."""
    return list(dict.fromkeys(key for each in found for key in each))


def ranked(tasks: Tasks) -> list[Row]:
    """Those with a result first, the best of them first; then those that run or wait, those that
    were stopped, those that failed. Equals stay in their order."""
    order = {"Succeeded": 0, "Running": 1, "Pending": 2, "Stopped": 3, "Failed": 4}

    def key(row: Row) -> tuple[float, ...]:
        return order.get(row.state, 5), *(each.cost(row) for each in tasks.objectives)

    return sorted(tasks.rows, key=key)


def sorted_by(tasks: Tasks, column: str) -> list[Row]:
    """By a parameter, a figure, or one of `columns`: objectives from the best, others from the
    least; who has no such value comes last.

    Raises:
        KeyError: there is no such column.
    """
    if column not in columns(tasks):
        raise KeyError(column)
    objective = next((each for each in tasks.objectives if each.metric == column), None)

    def key(row: Row) -> tuple[bool, float, str]:
        if objective is not None:
            return objective.cost(row) == math.inf, objective.cost(row), ""
        value = cell(row, column)
        found = _figure(value)
        if found is None or math.isnan(found):
            return value in ("", None), math.inf, str(value)
        return False, found, ""

    return sorted(tasks.rows, key=key)


OWN = ("name", "state", "steps", "seconds", "workers", "ended")


def columns(tasks: Tasks) -> list[str]:
    """What tasks can be sorted by."""
    return [*OWN, *tasks.parameters, *tasks.metrics]


def cell(row: Row, column: str) -> Any:
    own = {
        "name": row.name,
        "state": row.state,
        "steps": row.step,
        "seconds": row.seconds,
        "workers": row.workers,
        "ended": row.ended or None,
    }
    if column in row.metrics:
        return row.metrics[column]
    return row.parameters[column] if column in row.parameters else own.get(column)


def in_order(tasks: Tasks, aim: Objective) -> list[Row]:
    """Those with the objective's figure in the order in which they ended."""
    known = [
        row
        for row in tasks.rows
        if row.state in ("Succeeded", "Stopped") and math.isfinite(value(row, aim))
    ]
    return sorted(known, key=lambda row: row.ended)


def value(row: Row, objective: Objective) -> float:
    """NaN where the task has no such figure."""
    return row.metrics.get(objective.metric, math.nan)


def best_so_far(values: Sequence[float], least: bool) -> list[float]:
    """The best of each and those before it; NaN counts for nothing."""
    found: list[float] = []
    best = math.nan
    for each in values:
        better = each < best if least else each > best
        best = each if math.isnan(best) or better else best
        found.append(best)
    return found


def bests(rows: Sequence[Row], aim: Objective) -> list[float]:
    """The best so far of those trained to their end; NaN before the first of them."""
    ends = [value(row, aim) if row.state == "Succeeded" else math.nan for row in rows]
    return best_so_far(ends, aim.least)


def front(points: Sequence[tuple[float, float]], least: tuple[bool, bool]) -> list[int]:
    """The places of the points that no other is at least as good as in both and better in one,
    from the least of the first."""
    signs = tuple(1 if each else -1 for each in least)
    costs = [(x * signs[0], y * signs[1]) for x, y in points]
    order = sorted(range(len(costs)), key=lambda place: costs[place])
    kept: list[int] = []
    lowest = math.inf
    for place in order:
        if costs[place][1] < lowest or (kept and costs[place] == costs[kept[-1]]):
            kept.append(place)
            lowest = costs[place][1]
    return sorted(kept, key=lambda place: points[place])
