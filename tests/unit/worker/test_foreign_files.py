"""Files of the output folder that somebody else wrote: neither waited for, nor followed, nor
believed without a look."""

from __future__ import annotations

import json
import os

import pytest

from shardwise.coordinator.report import Collect, TaskRow
from shardwise.coordinator.rows import pack
from shardwise.worker import output
from shardwise.worker.collecting import collect

ROW = TaskRow(
    name="t-0001",
    state="Succeeded",
    parameters={},
    metrics={"loss": 1.0},
    weights_sha256="a" * 64,
    step=3,
    seconds=1.0,
    workers=1,
    ended=1,
    reason="",
    message="",
)


def collected(base):
    what = Collect(rows=pack([ROW]), best="t-0001", objectives=[], pareto=[])
    return collect(base, "job", "pool", what)


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / "tasks" / "t-0001"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize(
    "content", ["[]", "null", "[" * 100_000, '{"pool": "pool"}', '{"pool": "pool", "metrics": 3}']
)
def test_a_result_that_is_none(tmp_path, task, content):
    (task / "result.json").write_text(content)
    assert collected(tmp_path)["metrics"] == [{"name": "loss", "value": "1"}]


def test_a_pipe_in_place_of_a_result(tmp_path, task):
    os.mkfifo(task / "result.json")
    assert collected(tmp_path)["metrics"] == [{"name": "loss", "value": "1"}]


def test_a_link_out_of_the_folder_is_not_copied(tmp_path, task, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "token"
    secret.write_text("secret")
    (task / "notes.txt").symlink_to(secret)
    os.mkfifo(task / "pipe")
    collected(tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == b"weights"
    assert not (tmp_path / "notes.txt").exists()
    assert not (tmp_path / "pipe").exists()


def test_no_link_is_written_through(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / f".result.json.{os.getpid()}").symlink_to(elsewhere)
    output.write_aside(folder / "result.json", lambda path: path.write_text(json.dumps({})))
    assert elsewhere.read_text() == "untouched"
    assert (folder / "result.json").read_text() == "{}"
