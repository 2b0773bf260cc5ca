"""An entrypoint's parameters, read from its source text, and the jobs that do not fit them."""

from __future__ import annotations

import inspect
from textwrap import dedent

import pytest
from tasks_job import LIST, floats, job, sweep

import shardwise.examples.digits
from shardwise.api import conditions
from shardwise.api.signature import Signature, parameters_of, signature_errors
from shardwise.api.validation import validate

TAKES = Signature(("hidden", "learning_rate"), ("learning_rate",), False)


@pytest.mark.parametrize(
    ("arguments", "signature"),
    [
        ("", Signature((), (), False)),
        ("a, b=1", Signature(("a", "b"), ("a",), False)),
        ("a: int, b: float = 0.1, *, c, d='x'", Signature(("a", "b", "c", "d"), ("a", "c"), False)),
        ("a, /, b, c=1", Signature(("b", "c"), ("b",), False)),
        ("a, b=1, /, c=2", Signature(("c",), (), False)),
        ("*rest, a", Signature(("a",), ("a",), False)),
        ("a, **more", Signature(("a",), ("a",), True)),
    ],
)
def test_what_a_function_takes(arguments, signature):
    source = f"def task({arguments}):\n    return None\n"
    assert parameters_of(source, "task") == signature
    made: dict = {}
    exec(source, made)
    found = inspect.signature(made["task"]).parameters.values()
    by_name = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    assert tuple(p.name for p in by_name) == signature.names
    assert tuple(p.name for p in by_name if p.default is p.empty) == signature.required


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def other(a): ...",
        "def task(a) return",
        "from elsewhere import task",
        "from elsewhere import other as task",
        "task = lambda a: a",
        "class task:\n    def __init__(self, a): ...",
        "async def task(a): ...",
        "@wrapped\ndef task(a): ...",
        "if True:\n    def task(a): ...",
        "def task(a): ...\nfrom elsewhere import *",
        "def task(a): ...\ntask = wrapped(task)",
        "def task(a): ...\nif FAST:\n    task = quick",
        "def task(a): ...\nfor task in tasks: ...",
        "def task(a): ...\nwith opened() as task: ...",
        "def task(a): ...\ntry: ...\nexcept Exception as task: ...",
        "def task(a): ...\ndel task",
        "def task(a): ...\nimport task.more",
        "def outer():\n    def task(a): ...",
        "x = '\\0'\x00",
    ],
)
def test_where_the_text_does_not_tell_nothing_is_said(source):
    assert parameters_of(source, "task") is None


def test_the_last_definition_counts():
    source = "from x import *\ntask = None\ndef task(a): ...\ndef task(b): ...\nother = task(b=1)"
    assert parameters_of(source, "task") == Signature(("b",), ("b",), False)


def test_an_example():
    found = parameters_of(inspect.getsource(shardwise.examples.digits), "task")
    assert found == Signature(("hidden", "learning_rate"), (), False)


def errors(tasks, **parameters):
    manifest = job(tasks, parameters=parameters)
    if tasks is None:
        del manifest["spec"]["tasks"]
        manifest["spec"]["workers"] = {}
    return signature_errors(validate(manifest), TAKES)


ENTRYPOINT = "shardwise.examples.digits:task"


def test_what_fits_is_accepted():
    assert errors(None, learning_rate="0.1") == []
    assert errors({"list": LIST}, learning_rate="0.1") == []
    assert errors({"list": LIST[:1]}) == []
    assert errors(sweep({"name": "learning_rate", "values": ["0.1"]})) == []
    assert (
        errors(sweep({"name": "s", "field": "trainer.seed", "values": [1]}), learning_rate=1) == []
    )


@pytest.mark.parametrize("name", ["learningRate", "LEARNING_RATE", "learning_rat"])
def test_a_misspelt_parameter(name):
    first, second = errors(None, **{name: "0.1"})
    assert str(first) == (
        f"spec.trainer.parameters.{name}: {name!r} is no parameter of {ENTRYPOINT};"
        " did you mean 'learning_rate'?"
    )
    assert first.value == "0.1"
    assert first.reason == conditions.INVALID_SPEC
    assert str(second) == (
        f"spec.trainer.parameters.learning_rate: is missing, and {ENTRYPOINT} needs it; add it"
    )


def test_a_parameter_like_no_other():
    (error,) = errors(None, learning_rate="0.1", zzz=1)
    assert error.remedy == "remove it; the function takes hidden, learning_rate"


@pytest.mark.parametrize(
    ("name", "field"), [("epochs", "epochs"), ("batch_size", "batchSize"), ("batchSize",) * 2]
)
def test_a_sweep_over_what_is_the_trainers(name, field):
    (error,) = errors(sweep({"name": name, "values": [8, 16]}), learning_rate="0.1")
    assert error.field == "spec.tasks.sweep.parameters[0].name"
    assert error.remedy == (
        f"for spec.trainer.{field} add field: trainer.{field}; "
        "the function takes hidden, learning_rate"
    )


def test_a_function_that_takes_anything_takes_anything():
    manifest = validate(job({"list": LIST}, parameters={"zzz": 1}))
    assert signature_errors(manifest, Signature((), (), True)) == []


def test_an_unknown_parameter_of_many_tasks_is_told_once():
    items = [{"name": f"t{n}", "parameters": {"momentum": n}} for n in range(5)]
    (error,) = errors({"list": items}, learning_rate="0.1")
    assert error.field == "spec.tasks.list[0].parameters.momentum"
    assert "'momentum' is no parameter of" in str(error)
    assert error.reason == conditions.INVALID_TASKS


def test_an_unknown_parameter_of_a_sweep():
    tasks = sweep(floats(0, 1, "rate", points=2))
    (error,) = errors(tasks, learning_rate="0.1")
    assert error.field == "spec.tasks.sweep.parameters[0].name"
    assert error.value == "rate"


def test_a_task_without_what_is_needed():
    (error,) = errors({"list": LIST})
    assert error.field == "spec.tasks.list[1].parameters.learning_rate"
    assert "add it there, or to spec.trainer.parameters for all tasks" in error.remedy


def test_a_sweep_without_what_is_needed():
    hidden = {"name": "hidden", "values": [1, 2]}
    (error,) = errors(sweep(hidden))
    assert error.field == "spec.trainer.parameters.learning_rate"
    assert error.remedy == "add it, or sweep over it"
    rate = {
        "name": "learning_rate",
        "values": ["0.1"],
        "when": {"parameter": "hidden", "values": [1]},
    }
    (error,) = errors(sweep(hidden, rate))
    assert error.field == "spec.tasks.sweep.parameters[1].when"
    assert "leaves 'learning_rate' out of some tasks" in error.problem
    assert errors(sweep(hidden, rate), learning_rate="0.2") == []


def test_a_nested_function_of_the_same_name_is_another():
    source = dedent(
        """
        def task(a):
            def task(b): ...
            return task
        class Other:
            def task(self, c): ...
        """
    )
    assert parameters_of(source, "task") == Signature(("a",), ("a",), False)
