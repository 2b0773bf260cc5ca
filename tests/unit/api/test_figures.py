"""What an entrypoint's text tells of its figures, and where it tells nothing."""

from __future__ import annotations

import inspect

import pytest
from tasks_job import LIST, job

import shardwise.examples.digits
import shardwise.examples.fashion_mnist
from shardwise.api.conditions import INVALID_TASKS
from shardwise.api.figures import figures_of, objective_errors, source_errors
from shardwise.api.validation import validate

TEXT = """
from shardwise import SGD, Task, Tensors

def losses(model, batch):
    return [model, batch]

def task(hidden: int = 3):
    def loss(model, batch):
        return losses(model, batch)
    return Task(
        model=hidden, train=1, evaluation=2, loss=loss, optimizer=SGD(learning_rate=0.1),
        metrics=METRICS,
    )
"""
TWO = TEXT.replace("METRICS", 'lambda m, batch: {"top5": m, "accuracy": m}')


def test_a_dict_whose_names_stand_there():
    assert figures_of(TWO, "task") == ("loss", "accuracy", "top5")
    assert figures_of(TWO.replace("top5", "loss"), "task") == ("loss", "accuracy")


def test_without_metrics_there_is_the_loss():
    assert figures_of(TEXT.replace("METRICS", "None"), "task") == ("loss",)
    assert figures_of(TEXT.replace("        metrics=METRICS,\n", ""), "task") == ("loss",)


@pytest.mark.parametrize("module", [shardwise.examples.digits, shardwise.examples.fashion_mnist])
def test_the_examples(module):
    assert figures_of(inspect.getsource(module), "task") == ("loss", "accuracy")


@pytest.mark.parametrize(
    "source",
    [
        TEXT,
        TEXT.replace("METRICS", "lambda m, batch: {**m}"),
        TEXT.replace("METRICS", "lambda m, batch: {m: 1}"),
        TEXT.replace("METRICS", "lambda m, batch: dict(accuracy=1)"),
        TWO.replace("evaluation=2, ", ""),
        TWO.replace("evaluation=2", "evaluation=None"),
        TWO.replace("evaluation=2", "**more"),
        TWO.replace("model=hidden", "hidden"),
        TWO.replace("return Task(", "return made("),
        TWO.replace("return Task(", "if hidden:\n        return None\n    return Task("),
        TWO.replace("hidden: int = 3", "Task"),
        TWO.replace("from shardwise import", "from mine import"),
        TWO.replace("from shardwise import", "from .shardwise import"),
        TWO.replace("Task, Tensors", "Other as Task"),
        TWO + "\nfrom mine import *\n",
        TWO + "\nclass Task: pass\n",
        TWO + "\nTask = 3\n",
        TWO.replace("def task", "@cached\ndef task"),
        TWO + "\ntask = 3\n",
        "def task(:",
        "",
    ],
)
def test_where_the_text_does_not_tell(source):
    assert figures_of(source, "task") is None


def objectives(*metrics):
    found = [{"metric": metric, "direction": "Maximize"} for metric in metrics]
    return validate(job({"list": LIST[1:], "objectives": found}))


def test_an_objective_that_the_evaluation_does_not_give():
    (error,) = objective_errors(objectives("accuracy", "acuracy", "bytes"), ("loss", "accuracy"))
    assert str(error) == (
        "spec.tasks.objectives[1].metric: the evaluation of shardwise.examples.digits:task gives "
        "no 'acuracy'; did you mean 'accuracy'?"
    )
    assert (error.value, error.reason) == ("acuracy", INVALID_TASKS)
    (error,) = objective_errors(objectives("f1"), ("loss", "accuracy"))
    assert error.remedy == "it gives loss, accuracy"


def test_all_that_the_text_tells():
    found = source_errors(objectives("f1"), TWO.replace("hidden: int = 3", "hiden"), "task")
    assert [error.field for error in found] == [
        "spec.trainer.parameters.hidden",
        "spec.tasks.list[0].parameters.hiden",
        "spec.tasks.objectives[0].metric",
    ]
    assert source_errors(objectives("f1"), "def task(:", "task") == []


def test_a_job_without_tasks_has_no_objectives():
    manifest = job()
    del manifest["spec"]["tasks"]
    manifest["spec"]["workers"] = {}
    assert source_errors(validate(manifest), TWO, "task") == []
