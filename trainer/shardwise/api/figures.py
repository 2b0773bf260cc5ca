"""What an entrypoint's evaluation gives, told from the entrypoint's source text.

Pure, as `signature` is, and as reluctant: only where the function returns one `Task(...)` whose
metrics are a dict with names that stand there is anything said of them.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator

from shardwise.api.conditions import INVALID_TASKS
from shardwise.api.errors import FieldError
from shardwise.api.signature import function_of, parameters_of, signature_errors
from shardwise.api.tasks import COMPRESSION_METRICS
from shardwise.api.types import OptimizationJob

LOSS = "loss"


def source_errors(job: OptimizationJob, source: str, function: str) -> list[FieldError]:
    """What the entrypoint's text tells against the job: parameters that it does not take, or
    needs and does not get, and objectives that it does not give.

    Args:
        source: of the entrypoint's module.
        function: the entrypoint's.
    """
    signature, figures = parameters_of(source, function), figures_of(source, function)
    return [
        *(() if signature is None else signature_errors(job, signature)),
        *(() if figures is None else objective_errors(job, figures)),
    ]


def figures_of(source: str, function: str) -> tuple[str, ...] | None:
    """The names of the figures of an evaluation, in order; None where the text does not tell."""
    found = function_of(source, function)
    if found is None:
        return None
    module, made = found
    returns = list(_returns(made.body))
    if len(returns) != 1 or not _is_task(returns[0].value, module):
        return None
    call = returns[0].value
    assert isinstance(call, ast.Call)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if call.args or None in given or _is_none(given.get("evaluation")):
        return None
    metrics = given.get("metrics")
    names = [] if _is_none(metrics) else _names(metrics)
    return None if names is None else (LOSS, *sorted({*names} - {LOSS}))


def objective_errors(job: OptimizationJob, figures: tuple[str, ...]) -> Iterator[FieldError]:
    """Objectives of the tasks that the entrypoint's evaluation does not give."""
    tasks, entrypoint = job.spec.tasks, job.spec.trainer.entrypoint
    for index, objective in enumerate(() if tasks is None else tasks.objectives):
        metric = objective.metric
        if metric in figures or metric in COMPRESSION_METRICS:
            continue
        near = difflib.get_close_matches(metric, figures, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"it gives {', '.join(figures)}"
        yield FieldError(
            f"spec.tasks.objectives[{index}].metric",
            metric,
            f"the evaluation of {entrypoint} gives no {metric!r}",
            known,
            INVALID_TASKS,
        )


def _returns(body: list[ast.stmt]) -> Iterator[ast.Return]:
    """The returns of a function, not those of functions in it."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _is_task(value: ast.expr | None, module: ast.Module) -> bool:
    """Whether a value is a call of shardwise's Task, under that name and no other meaning."""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name)):
        return False
    if value.func.id != "Task":
        return False
    bound = [node for node in ast.walk(module) if _is_bound(node)]
    return len(bound) == 1 and bound[0] in module.body and _is_import(bound[0])


def _is_bound(node: ast.AST) -> bool:
    match node:
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            return any((alias.asname or alias.name) in ("Task", "*") for alias in names)
        case ast.ClassDef(name="Task") | ast.FunctionDef(name="Task"):
            return True
        case ast.Name(id="Task", ctx=ast.Store() | ast.Del()) | ast.arg(arg="Task"):
            return True
    return False


def _is_import(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "shardwise"
        and not node.level
        and any(alias.name == "Task" and alias.asname is None for alias in node.names)
    )


def _names(metrics: ast.expr | None) -> list[str] | None:
    """The keys of the dict that a lambda gives."""
    if not (isinstance(metrics, ast.Lambda) and isinstance(metrics.body, ast.Dict)):
        return None
    names = []
    for key in metrics.body.keys:
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return None
        names.append(key.value)
    return names


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)
