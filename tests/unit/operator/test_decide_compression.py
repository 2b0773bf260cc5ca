"""A compression: its stage, and its table at the end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from operator_world import SHA, World, told

from shardwise.api.types import OptimizationJobStatus

STEPS = {"steps": [{"name": "prune", "prune": {"sparsity": "0.5"}}]}
ROWS = [
    {"name": "trained", "metric": "accuracy 0.9800", "bytes": 5000, "parameters": 9, "macs": 8},
    {"name": "prune", "metric": "accuracy 0.9700", "bytes": 900, "latencyMilliseconds": "0.512"},
]
ARTIFACTS = [
    {"name": name, "path": f"/output/digits/{name}", "bytes": 9, "sha256": "b" * 64}
    for name in ("model.safetensors", "model.onnx")
]
COMPRESSED = {
    "steps": 20,
    "weightsSha256": SHA,
    "artifacts": ARTIFACTS,
    "compression": {"rows": ROWS, "undone": ""},
}


def compressed(**changes):
    return told("succeeded", result={**COMPRESSED, **changes})


def test_a_compression_shows_its_stage_and_its_table():
    world = World(compression=STEPS)
    world.train(step=20)
    assert world.status["progress"]["percent"] == 100
    progress = replace(world.report.progress, stage="compression: prune", eta_seconds=0.0)
    world.coordinator(progress=progress)
    world.settle()
    assert world.status["state"] == "Running"
    assert world.status["message"] == "compression: prune, generation 1 on 4 workers"
    assert world.status["progress"]["stage"] == "compression: prune"
    assert world.status["progress"]["percent"] == 99, "it is not done yet"
    assert "estimatedRemaining" not in world.status["progress"]
    world.end_pod(0, 0, termination=compressed())
    world.settle()
    assert world.status["state"] == "Succeeded"
    assert world.status["progress"]["percent"] == 100
    assert "stage" not in world.status["progress"]
    assert world.status["artifacts"] == ARTIFACTS
    assert world.status["compression"] == {"rows": ROWS}
    assert "compressed from 5000 to 900 bytes, accuracy 0.9700" in world.status["message"]
    OptimizationJobStatus.model_validate(world.status)


def test_the_step_that_the_guard_took_back_is_told():
    world = World(compression=STEPS)
    world.train()
    world.end_pod(0, 0, termination=compressed(compression={"rows": ROWS, "undone": "prune"}))
    world.settle()
    assert world.status["compression"]["undone"] == "prune"
    assert world.status["message"].endswith(
        "from 5000 to 5000 bytes, accuracy 0.9800; the guard took step prune back"
    )


def test_what_a_pod_had_no_room_for_comes_from_the_coordinator():
    world = World(compression=STEPS)
    world.train()
    world.coordinator(state="finished", result=COMPRESSED)
    short = {key: value for key, value in COMPRESSED.items() if key != "compression"}
    world.end_pod(0, 0, termination=told("succeeded", result=short))
    world.settle()
    assert world.status["compression"]["rows"] == ROWS
    assert world.status["result"]["pod"] == "digits-0"


@pytest.mark.parametrize(
    ("changes", "artifacts", "rows"),
    [
        ({"artifacts": "x", "compression": "y"}, None, None),
        ({"artifacts": [3, {"path": "/"}, ARTIFACTS[0]]}, ARTIFACTS[:1], ROWS),
        ({"compression": {"rows": [{"bytes": -1}, ROWS[0]]}}, ARTIFACTS, ROWS[:1]),
        (
            {"compression": {"rows": [ROWS[0], {"name": "trained"}]}},
            ARTIFACTS,
            [ROWS[0], {"name": "trained'"}],
        ),
    ],
)
def test_a_table_of_another_form_spoils_nothing(changes, artifacts, rows):
    world = World(compression=STEPS)
    world.train()
    world.end_pod(0, 0, termination=compressed(**changes))
    world.settle()
    assert world.status["state"] == "Succeeded"
    assert world.status.get("artifacts") == artifacts
    assert (world.status.get("compression") or {}).get("rows") == rows
