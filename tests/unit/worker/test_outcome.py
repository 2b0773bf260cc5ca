"""What a worker leaves in its pod's status fits into what Kubernetes keeps of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardwise.api.environment import TERMINATION_MESSAGE_BYTES
from shardwise.worker.outcome import Failure, Success, write_termination_message

SHA = "a" * 64


def result(steps: int, note: str = "", metrics: int = 2, folder: str = "/output/job") -> Any:
    """A result with a table of so many steps."""
    names = ["trained", *(f"step-{number}" for number in range(steps))]
    row = {"metric": "accuracy 0.9700", "latencyMilliseconds": "0.512"} | dict.fromkeys(
        ("bytes", "parameters", "nonzeros", "macs"), 123_456_789
    )
    files = ("model.safetensors", "graph.json.gz", "model.onnx")
    return {
        "steps": 1000,
        "metrics": [{"name": f"metric-{number}", "value": "0.5"} for number in range(metrics)],
        "weightsSha256": SHA,
        "optimizerSha256": SHA,
        "seconds": "10.0",
        "samplesPerSecond": "1000",
        "path": folder,
        "artifacts": [
            {"name": name, "path": f"{folder}/{name}", "bytes": 10**9, "sha256": SHA}
            for name in files
        ],
        "compression": {
            "rows": [{"name": name, **row, **({"note": note} if note else {})} for name in names],
            "undone": "",
        },
    }


def written(found: Any, folder: Path) -> Any:
    write_termination_message(Success(result=found), folder / "log")
    text = (folder / "log").read_text()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    return json.loads(text)["result"]


def test_what_fits_is_whole(tmp_path: Path) -> None:
    found = result(3, note="larger than before")
    assert written(found, tmp_path) == found


def test_notes_go_first_and_then_the_steps_in_the_middle(tmp_path: Path) -> None:
    found = result(5, note="taken back " * 60)
    rows = written(found, tmp_path)["compression"]["rows"]
    assert [row["name"] for row in rows] == [
        row["name"] for row in result(5)["compression"]["rows"]
    ]
    assert not any("note" in row for row in rows)
    found = result(16, note="x", metrics=9)
    left = written(found, tmp_path)
    names = [row["name"] for row in left["compression"]["rows"]]
    assert (names[0], names[-1]) == ("trained", "step-15")
    assert 10 <= len(names) < 17
    assert left["artifacts"] == found["artifacts"]
    assert len(found["compression"]["rows"]) == 17, "the result itself is left alone"
    assert found["compression"]["rows"][0]["note"] == "x"


@pytest.mark.parametrize(
    "found", [result(16, metrics=200), result(2, folder="/output/" + "x" * 900)]
)
def test_hashes_are_told_whatever_else_there_is(found: Any, tmp_path: Path) -> None:
    left = written(found, tmp_path)
    assert left["weightsSha256"] == SHA
    assert [item["sha256"] for item in left["artifacts"]] == [SHA] * 3


def test_of_a_failure_the_end_of_its_detail_is_kept(tmp_path: Path) -> None:
    failure = Failure(reason="UserCodeFailed", message_line="no", detail="x" * 9000 + "the end")
    write_termination_message(failure, tmp_path / "log")
    text = (tmp_path / "log").read_text()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    assert json.loads(text)["detail"].endswith("the end")
