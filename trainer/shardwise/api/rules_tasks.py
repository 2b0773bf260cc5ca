"""Rules across fields of spec.tasks; part of `rules`, where they are explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shardwise.api.rule import Rule, where
from shardwise.api.tasks import EarlyStopping, Sweep, SweepParameter, Tasks
from shardwise.api.types import OptimizationJob


def _tasks(job: OptimizationJob) -> Tasks:
    """spec.tasks; one that breaks no rule where there is none."""
    return job.spec.tasks or Tasks.model_construct(list=())


def _sweep(job: OptimizationJob) -> Sweep | None:
    return None if job.spec.tasks is None else job.spec.tasks.sweep


def _stopping(job: OptimizationJob) -> EarlyStopping | None:
    sweep = _sweep(job)
    return None if sweep is None else sweep.early_stopping


def _algorithm(job: OptimizationJob) -> str:
    sweep = _sweep(job)
    return "" if sweep is None else sweep.algorithm


def _metrics(job: OptimizationJob) -> list[str]:
    return [objective.metric for objective in _tasks(job).objectives]


def _objectives(what: str, why: str, count: str, right: Callable[[OptimizationJob], bool]) -> Rule:
    """spec.tasks.objectives has a certain number of entries where the sweep wants it.

    Args:
        what: the CEL expression for that the sweep does not want it.
        why: what wants it.
        count: how many, in CEL and in words: `== 1` or `>= 1`.
        right: the whole rule, in Python.
    """
    words = {"== 1": "exactly one entry", ">= 1": "at least one entry"}[count]
    return Rule(
        at="spec.tasks",
        field="spec.tasks.objectives",
        expression=f"!has(self.sweep) || {what} || "
        + where(f"size(self.objectives) {count}", "self.objectives"),
        message=f"spec.tasks.objectives must have {words} for {why}",
        remedy="write objectives: [{metric: accuracy, direction: Maximize}], or another metric",
        holds=right,
        value=_metrics,
        problem=lambda job: (
            f"has {len(_metrics(job))} entries, and {why} needs {words.removesuffix(' entry')}"
        ),
    )


def _one_choice(expression: str, message: str, problem: str, wrong: int) -> Rule:
    """Every parameter of a sweep has one of values and range.

    Args:
        wrong: how many of the two a parameter has that breaks the rule.
    """

    def broken(job: OptimizationJob) -> list[str]:
        sweep = _sweep(job)
        return [
            parameter.name
            for parameter in (() if sweep is None else sweep.parameters)
            if _given(parameter) == wrong
        ]

    return Rule(
        at="spec.tasks.sweep",
        field="spec.tasks.sweep.parameters",
        expression=f"self.parameters.all(p, {expression})",
        message=f"spec.tasks.sweep.parameters must each have {message}",
        remedy="give a parameter exactly one of values and range",
        holds=lambda job: not broken(job),
        value=broken,
        problem=lambda job: f"{', '.join(map(repr, broken(job)))} {problem}",
    )


def _given(parameter: SweepParameter) -> int:
    return (parameter.values is not None) + (parameter.range is not None)


def _length(job: OptimizationJob) -> int | None:
    trainer = job.spec.trainer
    return trainer.steps if trainer.epochs is None else trainer.epochs


def _rungs_below(job: OptimizationJob) -> bool:
    stopping, length = _stopping(job), _length(job)
    return stopping is None or length is None or all(rung < length for rung in stopping.rungs)


def _rungs_problem(job: OptimizationJob) -> str:
    stopping, unit = _stopping(job), "steps" if job.spec.trainer.epochs is None else "epochs"
    last = 0 if stopping is None else max(stopping.rungs)
    return f"has {last}, and the training ends at spec.trainer.{unit} ({_length(job)})"


def _pool_problem(job: OptimizationJob) -> str:
    bound = "replicas" if job.spec.workers.max is None else "max"
    return (
        f"{_tasks(job).workers_per_task} is more than spec.workers.{bound}"
        f" ({job.spec.workers.most}), so no task could begin"
    )


TASK_RULES: Final[tuple[Rule, ...]] = (
    Rule(
        at="spec.tasks",
        field="spec.tasks.list",
        expression="has(self.list) || has(self.sweep)",
        message="spec.tasks must have either list or sweep",
        remedy="add list, with a name and parameters for each task, or a sweep",
        holds=lambda job: _tasks(job).list is not None or _tasks(job).sweep is not None,
        value=lambda job: None,
        problem=lambda job: "is missing, and so is spec.tasks.sweep",
    ),
    Rule(
        at="spec.tasks",
        field="spec.tasks.list",
        expression="!(has(self.list) && has(self.sweep))",
        message="spec.tasks must not have both list and sweep",
        remedy="remove spec.tasks.list or spec.tasks.sweep",
        holds=lambda job: _tasks(job).list is None or _tasks(job).sweep is None,
        value=lambda job: [item.name for item in _tasks(job).list or ()],
        problem=lambda job: "is given beside spec.tasks.sweep",
    ),
    Rule(
        at="spec.tasks",
        field="spec.tasks.list",
        expression="!has(self.list) || !has(self.maxTasks) || size(self.list) <= self.maxTasks",
        message="spec.tasks.list must not have more entries than spec.tasks.maxTasks",
        remedy="remove maxTasks, or raise it",
        holds=lambda job: (
            (most := _tasks(job).max_tasks) is None or len(_tasks(job).list or ()) <= most
        ),
        value=lambda job: len(_tasks(job).list or ()),
        problem=lambda job: (
            f"has {len(_tasks(job).list or ())} entries, more than"
            f" spec.tasks.maxTasks ({_tasks(job).max_tasks})"
        ),
    ),
    Rule(
        at="spec.tasks",
        field="spec.tasks.maxTasks",
        expression=where(
            "self.sweep.algorithm == 'Grid' || has(self.maxTasks)",
            "self.sweep",
            "self.sweep.algorithm",
        ),
        message="spec.tasks.maxTasks must be given for Random, TPE and NSGA2",
        remedy="say how many tasks are to be tried, for example maxTasks: 50",
        holds=lambda job: _algorithm(job) in ("", "Grid") or _tasks(job).max_tasks is not None,
        value=lambda job: None,
        problem=lambda job: f"is missing, and {_algorithm(job)} goes on for as long as it may",
    ),
    _objectives(
        "!has(self.sweep.algorithm) || self.sweep.algorithm != 'TPE'",
        "TPE",
        "== 1",
        lambda job: _algorithm(job) != "TPE" or len(_metrics(job)) == 1,
    ),
    _objectives(
        "!has(self.sweep.algorithm) || self.sweep.algorithm != 'NSGA2'",
        "NSGA2",
        ">= 1",
        lambda job: _algorithm(job) != "NSGA2" or len(_metrics(job)) >= 1,
    ),
    _objectives(
        "!has(self.sweep.earlyStopping)",
        "earlyStopping",
        "== 1",
        lambda job: _stopping(job) is None or len(_metrics(job)) == 1,
    ),
    Rule(
        at="spec",
        field="spec.tasks.workersPerTask",
        expression=where(
            "type(self.tasks.workersPerTask) == string"
            " || self.tasks.workersPerTask <= self.trainer.shards",
            "self.tasks",
            "self.tasks.workersPerTask",
        ),
        message="spec.tasks.workersPerTask must not be more than spec.trainer.shards",
        remedy="lower workersPerTask or raise shards",
        holds=lambda job: (
            isinstance(group := _tasks(job).workers_per_task, str)
            or group <= job.spec.trainer.shards
        ),
        value=lambda job: _tasks(job).workers_per_task,
        problem=lambda job: (
            f"{_tasks(job).workers_per_task} is more than"
            f" spec.trainer.shards ({job.spec.trainer.shards})"
        ),
    ),
    Rule(
        at="spec",
        field="spec.tasks.workersPerTask",
        expression=where(
            "type(self.tasks.workersPerTask) == string || self.tasks.workersPerTask"
            " <= (has(self.workers.max) ? self.workers.max : self.workers.replicas)",
            "self.tasks",
            "self.tasks.workersPerTask",
            "self.workers",
            "self.workers.replicas",
        ),
        message="spec.tasks.workersPerTask must not be more than spec.workers.max,"
        " or replicas where there is no max",
        remedy="lower workersPerTask or raise spec.workers.replicas (and max, where it is given)",
        holds=lambda job: (
            isinstance(group := _tasks(job).workers_per_task, str) or group <= job.spec.workers.most
        ),
        value=lambda job: _tasks(job).workers_per_task,
        problem=_pool_problem,
    ),
    _one_choice(
        "has(p.values) || has(p.range)", "values or a range", "has neither values nor a range", 0
    ),
    _one_choice("!(has(p.values) && has(p.range))", "values or a range, not both", "has both", 2),
    Rule(
        at="spec",
        field="spec.tasks.sweep.earlyStopping.rungs",
        expression="!has(self.tasks) || !has(self.tasks.sweep)"
        " || !has(self.tasks.sweep.earlyStopping)"
        " || self.tasks.sweep.earlyStopping.rungs.all(r, has(self.trainer.epochs)"
        " ? r < self.trainer.epochs : !has(self.trainer.steps) || r < self.trainer.steps)",
        message="spec.tasks.sweep.earlyStopping.rungs must be below spec.trainer.epochs,"
        " or steps where it has steps",
        remedy="lower the rungs or raise spec.trainer.epochs (or steps)",
        holds=_rungs_below,
        value=lambda job: None if (found := _stopping(job)) is None else list(found.rungs),
        problem=_rungs_problem,
    ),
)
