"""Jobs with many tasks on processes of this machine: the results of each alone, whatever happens.

`SHARDWISE_CHAOS=full` (make chaos) runs the hundred tasks and twenty kills of the promise.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import Run, run

pytestmark = pytest.mark.timeout(1800)

FULL = os.environ.get("SHARDWISE_CHAOS") == "full"
RATES = ["0.05", "0.1", "0.2", "0.3", "0.4"] if FULL else ["0.1", "0.4"]
WIDTHS = [8 * n for n in range(1, 21)] if FULL else [16, 32, 64]
KILLS = 20 if FULL else 5
TRAINER = {
    "entrypoint": "shardwise.examples.digits:task",
    "epochs": 2,
    "batchSize": 128,
    "shards": 4,
    "seed": 7,
    "evaluateEveryEpochs": 0,
}
ACCURACY = [{"metric": "accuracy", "direction": "Maximize"}]
SWEEP = {
    "parameters": [
        {"name": "learning_rate", "values": RATES},
        {"name": "hidden", "values": WIDTHS},
    ],
    "algorithm": "Grid",
}
MODULE = """
import torch
from torch import nn
from shardwise import SGD, Task, Tensors

def losses(model, batch):
    return nn.functional.mse_loss(model(batch[0]), batch[1], reduction="none").mean(1)

def task(kind: str):
    if kind == "raises":
        raise ValueError("no such kind of data")
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    if kind == "nan":
        x[3] = float("nan")
    def loss(model, batch):
        if kind == "crashes":
            import os
            os.abort()
        return losses(model, batch)
    data = Tensors(x, x[:, :2])
    return Task(model=nn.Linear(4, 2), train=data, evaluation=Tensors(x[:2], x[:2, :2]), loss=loss,
                optimizer=SGD(learning_rate=0.1))
"""


def manifest(path: Path, tasks: dict[str, Any] | None, **trainer: Any) -> Path:
    spec: dict[str, Any] = {"trainer": {**TRAINER, **trainer}, "workers": {"replicas": 1, "max": 4}}
    if tasks is not None:
        spec["tasks"] = tasks
    job = {"apiVersion": "shardwise.dev/v1alpha1", "kind": "OptimizationJob", "spec": spec}
    path.write_text(yaml.safe_dump({**job, "metadata": {"name": path.stem}}))
    return path


def table(found: Run) -> dict[str, dict[str, str]]:
    """The rows of tasks.csv by name."""
    with (found.output / "tasks.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def weights(found: Run) -> dict[str, str]:
    return {task["name"]: task["weightsSha256"] for task in found.result["tasks"]}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The sweep on one worker, which nothing happens to."""
    folder = tmp_path_factory.mktemp("calm")
    path = manifest(folder / "sweep.yaml", {"sweep": SWEEP, "objectives": ACCURACY})
    found = run(path, folder / "out", "--workers", "1")
    assert found.code == 0, found.stderr
    return found


def test_every_task_gives_what_it_gives_alone(calm: Run, tmp_path: Path) -> None:
    assert len(weights(calm)) == len(RATES) * len(WIDTHS)
    assert len(set(weights(calm).values())) == len(weights(calm))
    for task in (calm.result["tasks"][0], calm.result["best"]):
        path = manifest(tmp_path / f"{task['name']}.yaml", None, parameters=task["parameters"])
        alone = run(path, tmp_path / task["name"], "--workers", "1")
        assert alone.code == 0, alone.stderr
        assert alone.result["weightsSha256"] == task["weightsSha256"]
        assert alone.result["metrics"]["accuracy"] == task["metrics"]["accuracy"]


def test_the_best_ones_weights_are_the_jobs(calm: Run) -> None:
    rows = table(calm)
    best = max(rows.values(), key=lambda row: float(row["accuracy"]))
    assert calm.result["best"]["metrics"]["accuracy"] == float(best["accuracy"])
    name = calm.result["best"]["name"]
    own = (calm.output / "tasks" / name / "weights.safetensors").read_bytes()
    assert (calm.output / "weights.safetensors").read_bytes() == own
    assert calm.result["weightsSha256"] == rows[name]["weightsSha256"]
    assert {row["state"] for row in rows.values()} == {"Succeeded"}


def test_kills_and_new_coordinators_change_nothing(calm: Run, tmp_path: Path) -> None:
    path = manifest(tmp_path / "sweep.yaml", {"sweep": SWEEP, "objectives": ACCURACY})
    faults = [f"kill:{n % 4}@{2 + n}" for n in range(KILLS)]
    steps = len(weights(calm)) * int(table(calm)["task-0"]["steps"])
    faults += [f"crash-coordinator@{steps * part // 4}" for part in (1, 2)]
    found = run(path, tmp_path / "out", "--workers", "4", *(f"--fault={fault}" for fault in faults))
    assert found.code == 0, found.stderr
    assert weights(found) == weights(calm)
    assert found.result["best"]["name"] == calm.result["best"]["name"]


def test_what_one_task_does_harms_no_other(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(MODULE)
    kinds = ["good", "raises", "nan", "crashes", "fine"]
    listed = [{"name": kind, "parameters": {"kind": kind}} for kind in kinds]
    tasks = {"list": listed, "maxRetries": 1, "objectives": []}
    changes = {"entrypoint": "kinds:task", "batchSize": 32}
    path = manifest(tmp_path / "kinds.yaml", tasks, **changes)
    found = run(path, tmp_path / "out", "--workers", "2")
    assert found.code == 0, found.stderr
    rows = table(found)
    assert {name: row["state"] for name, row in rows.items()} == {
        "good": "Succeeded",
        "raises": "Failed",
        "nan": "Failed",
        "crashes": "Failed",
        "fine": "Succeeded",
    }
    assert "ValueError: no such kind of data" in rows["raises"]["message"]
    assert "not finite" in rows["nan"]["message"] or "nan" in rows["nan"]["message"]
    assert "Signal 6" in rows["crashes"]["message"]
    assert rows["good"]["weightsSha256"] == rows["fine"]["weightsSha256"] != ""


def test_an_objective_that_the_entrypoints_text_does_not_have_is_told_at_once(
    tmp_path: Path,
) -> None:
    objectives = [{"metric": "acuracy", "direction": "Maximize"}]
    path = manifest(tmp_path / "typo.yaml", {"sweep": SWEEP, "objectives": objectives})
    found = run(path, tmp_path / "out", "--workers", "2")
    assert found.code == 2
    assert found.stderr == (
        "Error: spec.tasks.objectives[0].metric: the evaluation of shardwise.examples.digits:task "
        "gives no 'acuracy'; did you mean 'accuracy'?\n"
    )


def test_an_objective_that_there_is_not_ends_the_job_before_it_trains(tmp_path: Path) -> None:
    """Where the text does not tell what an evaluation gives, the first worker does."""
    text = MODULE.replace("return Task(", "return Task(metrics=METRICS, ")
    (tmp_path / "kinds.py").write_text(text + "\nMETRICS = None\n")
    objectives = [{"metric": "acuracy", "direction": "Maximize"}]
    listed = [{"name": "one", "parameters": {"kind": "fine"}}]
    changes = {"entrypoint": "kinds:task", "batchSize": 32}
    tasks = {"list": listed, "objectives": objectives}
    path = manifest(tmp_path / "typo.yaml", tasks, **changes)
    found = run(path, tmp_path / "out", "--workers", "2")
    assert found.code == 1
    assert (
        "spec.tasks.objectives[0].metric: the evaluation gives no 'acuracy'; it gives loss"
        in found.stderr
    )
    assert not (found.output / "tasks").exists()


def test_early_stopping_goes_on_from_where_a_task_paused(tmp_path: Path, calm: Run) -> None:
    sweep = {**SWEEP, "earlyStopping": {"rungs": [1], "reductionFactor": 2}}
    path = manifest(tmp_path / "asha.yaml", {"sweep": sweep, "objectives": ACCURACY})
    found = run(path, tmp_path / "out", "--workers", "2")
    assert found.code == 0, found.stderr
    rows, whole = table(found), table(calm)
    ended = {name for name, row in rows.items() if row["state"] == "Succeeded"}
    stopped = {name for name, row in rows.items() if row["state"] == "Stopped"}
    assert ended and stopped and ended | stopped == set(rows)
    for name in ended:
        assert rows[name]["weightsSha256"] == whole[name]["weightsSha256"]
    assert {rows[name]["steps"] for name in stopped} == {str(int(whole["task-0"]["steps"]) // 2)}
    assert not list((found.output / "tasks").glob("*/state-*"))


def test_a_rerun_that_fails_shows_nothing_of_the_run_before_it(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text(MODULE)
    tasks = {"list": [{"name": "one", "parameters": {"kind": "fine"}}], "objectives": []}
    changes = {"entrypoint": "kinds:task", "batchSize": 32}
    first = run(manifest(tmp_path / "a.yaml", tasks, **changes), tmp_path / "out")
    assert first.code == 0, first.stderr
    assert table(first)["one"]["state"] == "Succeeded"
    # As a run that was killed leaves it.
    (first.output / "shared-01234567").mkdir()
    tasks["list"][0]["parameters"] = {"kind": "raises"}
    again = run(manifest(tmp_path / "a.yaml", tasks, **changes), tmp_path / "out")
    assert again.code == 1
    assert "no such kind of data" in again.stderr
    left = {str(path.relative_to(again.output)) for path in again.output.rglob("*")}
    assert not {"result.json", "tasks.csv", "tasks/one/result.json"} & left
    assert not [name for name in left if name.startswith("shared-")]
