"""`plot` of many tasks: on the terminal, as pictures, and what it refuses."""

from __future__ import annotations

import json

import pytest
from cli_api import JOBS
from click.testing import CliRunner
from samples import pool, task
from test_cli_tasks import RESULT

from shardwise.cli.main import main

KINDS = ["--parallel-coordinates", "--pareto", "--history"]


def run(*arguments):
    environment = {"COLUMNS": "80"}
    return CliRunner().invoke(main, ["plot", *map(str, arguments)], env=environment)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    (made / "tasks").mkdir()
    (made / "result.json").write_text(json.dumps(RESULT))
    return made


def rewrite(folder, **changed):
    (folder / "result.json").write_text(json.dumps({**RESULT, **changed}))


def test_the_history_on_the_terminal(folder):
    done = run(folder, "--history")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    # task-2 ended first, and stayed the best one: its line is at the top all along.
    assert lines[0].startswith(" 0.9 ┤•⠉⠉")
    assert lines[17].startswith(" 0.8 ┤")
    assert sum(line.count("•") for line in lines[:18]) == 3
    assert lines[18].split() == ["1", "ended", "3"]
    assert lines[20] == "  best task-2: accuracy 0.9, bytes 2,000 · bits=8 learning_rate=0.1"
    assert max(map(len, lines)) <= 80


def test_the_front_on_the_terminal(folder):
    lines = run(folder, "--pareto").stdout.splitlines()
    assert lines[18].split() == ["1,000", "bytes", "5,000"]
    assert lines[20:] == [
        "  task-0: accuracy 0.8, bytes 1,000 · bits=4 learning_rate=0.1",
        "  task-2: accuracy 0.9, bytes 2,000 · bits=8 learning_rate=0.1",
    ]
    other_way = run(folder, "--pareto", "-m", "bytes").stdout.splitlines()
    assert other_way[18].split() == ["0.8", "accuracy", "0.9"]


def test_parallel_coordinates_on_the_terminal(folder):
    lines = run(folder, "--parallel-coordinates").stdout.splitlines()
    assert lines[0].split() == ["bits", "learning_rate", "accuracy"]
    assert lines[1].startswith("┤10") and lines[1].endswith("┤0.9")
    assert lines[18].startswith("┤4") and lines[18].endswith("┤0.8")
    assert max(map(len, lines)) <= 80
    assert lines[-2].split(" · ") == ["  best tenth", "better half", "the rest"]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures(folder, tmp_path, kind):
    picture = tmp_path / "picture.png"
    done = run(folder, kind, "-o", picture)
    assert (done.exit_code, done.stdout) == (0, f"{picture}\n"), done.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(folder, kind, "-o", "/nowhere/picture.png").exit_code == 2


@pytest.mark.parametrize("kind", KINDS)
def test_one_task_alone_can_be_drawn(folder, tmp_path, kind):
    rewrite(folder, tasks=RESULT["tasks"][:1], best={"name": "task-0"})
    assert run(folder, kind).exit_code == 0
    assert run(folder, kind, "-o", tmp_path / "picture.png").exit_code == 0


def test_a_job_in_a_cluster(api, call):
    api.put(JOBS, pool(items=[task(2), task(1)]))
    done = call("plot", "sweep", "--history")
    assert done.exit_code == 0, done.output
    assert "best task-3: accuracy 0.93" in done.stdout
    assert done.stderr.startswith("3 of 10 tasks: the status holds no more")


def test_mistakes(folder, tmp_path):
    bare = run(folder)
    assert bare.exit_code == 2
    assert "has many tasks: give --parallel-coordinates, --pareto or --history" in bare.stderr
    assert "give one folder or job, not 2" in run(folder, folder, "--history").stderr
    unknown = run(folder, "--history", "-m", "loss")
    assert "'loss' is no objective of sweep; it has accuracy, bytes" in unknown.stderr
    assert "--log" in run(folder, "--history", "--log").stderr
    rewrite(folder, objectives=RESULT["objectives"][:1])
    assert (
        "--pareto: needs 2 objectives, and sweep has 1 (accuracy)" in run(folder, "--pareto").stderr
    )
    rewrite(folder, objectives=[])
    assert "needs 1 objective, and sweep has 0 (none)" in run(folder, "--history").stderr
    rewrite(folder, tasks=[{"name": "task-0", "state": "Failed"}])
    for kind in KINDS:
        assert "nothing to draw: no task of sweep has ended" in run(folder, kind).stderr
