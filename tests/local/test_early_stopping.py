"""What early stopping is for, on real trainings: nearly the best of a grid for a third of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import Run, run

pytestmark = pytest.mark.timeout(900)

RATES = ["0.01", "0.02", "0.05", "0.1", "0.2", "0.4", "0.8"]
WIDTHS = [16, 32, 64, 128]
JOB: dict[str, Any] = {
    "apiVersion": "shardwise.dev/v1alpha1",
    "kind": "OptimizationJob",
    "metadata": {"name": "digits"},
    "spec": {
        "trainer": {
            "entrypoint": "shardwise.examples.digits:task",
            "epochs": 9,
            "batchSize": 128,
            "shards": 4,
            "seed": 7,
            "evaluateEveryEpochs": 0,
        },
        "workers": {"replicas": 2},
        "tasks": {
            "sweep": {
                "parameters": [
                    {"name": "learning_rate", "values": RATES},
                    {"name": "hidden", "values": WIDTHS},
                ],
                "algorithm": "Grid",
            },
            "objectives": [{"metric": "accuracy", "direction": "Maximize"}],
        },
    },
}
STOPPING = {"rungs": [1, 3], "reductionFactor": 3}
WITHIN, SPENT = 0.99, 0.35


def made(folder: Path, stopping: dict[str, Any] | None) -> Run:
    sweep = {**JOB["spec"]["tasks"]["sweep"], **({"earlyStopping": stopping} if stopping else {})}
    spec = {**JOB["spec"], "tasks": {**JOB["spec"]["tasks"], "sweep": sweep}}
    folder.mkdir()
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump({**JOB, "spec": spec}))
    found = run(path, folder / "out")
    assert found.code == 0, found.stderr
    return found


def test_within_a_hundredth_of_the_grids_best_for_a_third_of_its_steps(tmp_path: Path) -> None:
    grid = made(tmp_path / "grid", None)
    asha = made(tmp_path / "asha", STOPPING)
    steps = {row["name"]: row["steps"] for row in grid.result["tasks"]}
    assert len(steps) == len(RATES) * len(WIDTHS)
    assert len(set(steps.values())) == 1, "each to its end"
    best, found = (each.result["best"]["metrics"]["accuracy"] for each in (grid, asha))
    part = asha.result["steps"] / grid.result["steps"]
    ended = [row for row in asha.result["tasks"] if row["state"] == "Succeeded"]
    print(
        f"grid {best:.4f} in {grid.result['steps']} steps; early stopping {found:.4f} in ", end=""
    )
    print(f"{asha.result['steps']} ({part:.1%}), {len(ended)} of {len(steps)} to their end")
    assert found >= WITHIN * best
    assert part <= SPENT
    assert asha.result["best"]["name"] in {row["name"] for row in ended}
