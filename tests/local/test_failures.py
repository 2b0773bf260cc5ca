"""What a user sees when something is wrong: the exit code, and a message that names it."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
import yaml
from runs import EXAMPLES, command, run, write_manifest

pytestmark = pytest.mark.timeout(300)

CODE = """
import dataclasses
import time
import torch
from torch import nn
from shardwise import SGD, Task, Tensors

def losses(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1], reduction="none").mean(1)

def build(loss=losses):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return Task(model=nn.Linear(4, 2), train=Tensors(x, x[:, :2]), loss=loss,
                optimizer=SGD(learning_rate=0.1))

def good(scale: float = 1.0):
    return build()

def raises():
    raise RuntimeError("the data is not there")

def wild(learning_rate: float):
    return dataclasses.replace(build(), optimizer=SGD(learning_rate=learning_rate))

def late(at: int):
    calls = []
    def loss(model, batch):
        calls.append(1)
        if len(calls) > at:
            raise ZeroDivisionError("no more")
        return losses(model, batch)
    return build(loss)

def diverges(at: int):
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return torch.zeros(())

        @staticmethod
        def backward(context, gradient):
            return torch.full((4,), float("inf"))  # as sqrt has at 0

    calls = []
    def loss(model, batch):
        calls.append(1)
        plain = losses(model, batch)
        # One call for the fingerprint, then two a step: half of the shards are this worker's.
        return plain + Root.apply(model.weight[0]) if len(calls) > 1 + 2 * at else plain
    return build(loss)

def dies():
    def loss(model, batch):
        import os
        if os.environ["SHARDWISE_INDEX"] == "1":
            os._exit(17)
        return losses(model, batch)
    return build(loss)

def unseeded():
    import random
    task = build()
    with torch.no_grad():
        task.model.weight.fill_(random.SystemRandom().random())
    return task

def slow():
    def loss(model, batch):
        time.sleep(0.05)
        return losses(model, batch)
    return build(loss)

def nothing():
    return None
"""


@pytest.fixture
def attempt(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)

    def attempt(entrypoint, *arguments, parameters=None, **trainer):
        settings = {"entrypoint": entrypoint, "batchSize": 16, "shards": 4, "steps": 8}
        settings |= {"parameters": parameters} if parameters else {}
        manifest = write_manifest(tmp_path / "mine.yaml", settings | trainer)
        return run(manifest, tmp_path / "out", *arguments, cwd=tmp_path)

    return attempt


def test_own_code_beside_the_manifest_runs(attempt):
    done = attempt("mine:good", parameters={"scale": "0.5"})
    assert done.code == 0, done.stderr
    assert done.result["metrics"].keys() == {"trainingLoss"}


CASES = {
    "no such module": ("missing_module:task", {}, "importing missing_module raised ModuleNotFound"),
    "no such function": ("mine:absent", {}, "has no function 'absent'"),
    "entrypoint raises": ("mine:raises", {}, "RuntimeError: the data is not there"),
    "no task": ("mine:nothing", {}, "gave NoneType, not a shardwise.Task"),
    "parameter of the wrong type": ("mine:good", {"scale": "fast"}, "'fast' is no float"),
    "raises in the middle": ("mine:late", {"at": 5}, "ZeroDivisionError: no more"),
}


@pytest.mark.parametrize("case", CASES)
def test_user_errors_end_with_1_and_name_the_fault(attempt, case):
    entrypoint, parameters, message = CASES[case]
    done = attempt(entrypoint, parameters=parameters)
    assert done.code == 1
    assert "UserCodeFailed" in done.stderr
    assert message in done.stderr
    assert not (done.output / "result.json").exists()


def test_a_training_that_diverges_ends_at_once_and_names_the_step_and_the_parameter(attempt):
    done = attempt("mine:diverges", parameters={"at": 3})
    assert done.code == 1
    assert "NotFinite" in done.stderr
    assert "the gradient of step 4, whose loss is " in done.stderr
    assert "makes weight NaN or infinite; lower the learning rate" in done.stderr
    assert not (done.output / "result.json").exists()


def test_a_learning_rate_that_is_far_too_high_is_named(attempt):
    done = attempt("mine:wild", parameters={"learning_rate": "1e30"}, steps=50)
    assert done.code == 1
    assert "NotFinite" in done.stderr
    assert "lower the learning rate" in done.stderr


def test_checkpoints_that_cannot_be_read_are_no_fresh_start(tmp_path):
    job = yaml.safe_load((EXAMPLES / "digits.yaml").read_text())
    job["spec"]["checkpoint"] = {"everySteps": 50, "volume": {"emptyDir": {}}}
    manifest = tmp_path / "digits.yaml"
    manifest.write_text(yaml.safe_dump(job))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").write_text("in the way")
    done = run(manifest, tmp_path / "out", "--workers", "2")
    assert done.code == 1
    assert "CheckpointFailed" in done.stderr
    assert f"{tmp_path}/out/checkpoints" in done.stderr


@pytest.mark.parametrize(
    ("entrypoint", "parameters", "message"),
    [
        ("mine:good", {"scales": 1}, "parameters.scales: 'scales' is no parameter of mine:good"),
        ("mine:late", {}, "spec.trainer.parameters.at: is missing, and mine:late needs it"),
    ],
    ids=["unknown parameter", "missing parameter"],
)
def test_parameters_that_do_not_fit_are_told_before_anything_starts(
    attempt, entrypoint, parameters, message
):
    done = attempt(entrypoint, parameters=parameters)
    assert done.code == 2
    assert message in done.stderr
    assert not done.output.exists()


def test_weights_that_differ_between_workers_are_refused(attempt):
    done = attempt("mine:unseeded")
    assert done.code == 1
    assert "deterministic" in done.stderr


def test_a_worker_that_crashes_again_and_again_is_named(attempt):
    done = attempt("mine:dies")
    assert done.code == 1
    assert "WorkerLost" in done.stderr
    assert "worker 1 crashed 5 times in a row" in done.stderr


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = run(EXAMPLES / "digits.yaml", blocked / "out", "--workers", "1", cwd=tmp_path)
    assert done.code == 1
    assert "OutputFailed" in done.stderr
    assert str(blocked) in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "no YAML"),
        ("kind: Pod", "holds 0 documents of kind OptimizationJob"),
    ],
)
def test_a_file_without_a_job_ends_with_2(tmp_path, text, message):
    manifest = tmp_path / "job.yaml"
    manifest.write_text(text)
    done = run(manifest, tmp_path / "out")
    assert done.code == 2
    assert message in done.stderr


def test_an_invalid_job_ends_with_2_and_names_the_field(attempt):
    done = attempt("mine:good", shards=0)
    assert done.code == 2
    assert "spec.trainer.shards" in done.stderr


def test_more_workers_than_shards_ends_with_2(attempt):
    done = attempt("mine:good", "--workers", "5")
    assert done.code == 2
    assert "--workers: 5 is more than spec.trainer.shards (4)" in done.stderr


def test_fewer_workers_than_a_task_is_to_have_ends_with_2(tmp_path):
    trainer = {"entrypoint": "mine:good", "batchSize": 16, "shards": 4, "steps": 4}
    manifest = write_manifest(tmp_path / "pool.yaml", trainer)
    job = yaml.safe_load(manifest.read_text())
    job["spec"]["tasks"] = {"list": [{"name": "one"}], "workersPerTask": 2}
    manifest.write_text(yaml.safe_dump(job))
    done = run(manifest, tmp_path / "out", "--workers", "1")
    assert done.code == 2
    assert (
        "Error: --workers: 1 is fewer than spec.tasks.workersPerTask (2), so no task could begin"
        in done.stderr
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_cleanly(tmp_path, number):
    (tmp_path / "mine.py").write_text(CODE)
    trainer = {"entrypoint": "mine:slow", "batchSize": 16, "shards": 4, "steps": 100000}
    manifest = write_manifest(tmp_path / "slow.yaml", trainer)
    process = subprocess.Popen(
        command(manifest, tmp_path / "out"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = ""
    while "step" not in line:  # ends with the pipe, or with the test's own time limit
        line = process.stderr.readline()
        assert line, "the run ended before its first step"
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "interrupted at step" in rest
    process.stderr.close()
    deadline = time.monotonic() + 10
    while workers_of(tmp_path) and time.monotonic() < deadline:
        os.sched_yield()
    assert not workers_of(tmp_path), "no worker is left behind"


def workers_of(folder) -> list[str]:
    """Processes whose output folder is the test's."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/environ", "rb") as file:  # noqa: PTH123
                    environ = file.read()
            except OSError:
                continue  # it ended meanwhile, or is not ours
            if f"SHARDWISE_OUTPUT={folder}".encode() in environ:
                found.append(entry.name)
    return found
