"""`plot`: curves of history files on the terminal and as pictures."""

from __future__ import annotations

import builtins

import pytest
from click.testing import CliRunner

from shardwise.cli.main import main
from shardwise.cli.plot import Course, drawn
from shardwise.cli.view.style import PLAIN


def run(*arguments):
    return CliRunner().invoke(main, ["plot", *map(str, arguments)], env={"COLUMNS": "60"})


@pytest.fixture
def folder(tmp_path):
    rows = ["step,epoch,loss,learningRate,evaluationLoss,accuracy"]
    for step in range(1, 101):
        evaluation = f"{1 / step},{1 - 1 / step}" if step % 10 == 0 else ","
        rows.append(f"{step},{step // 10},{2 / step},0.1,{evaluation}")
    made = tmp_path / "digits"
    made.mkdir()
    (made / "history.csv").write_text("\n".join(rows) + "\n")
    return made


def test_losses_on_the_terminal(folder):
    done = run(folder)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].strip().startswith("2 ┤")
    assert lines[16].split() == ["1", "step", "100"]
    assert [line.split() for line in lines[17:]] == [
        ["━━", "loss", "0.02"],
        ["━━", "evaluationLoss", "0.01"],
    ]
    assert max(map(len, lines)) <= 60


def test_a_metric_of_several_runs(folder):
    lines = run(folder, folder / "history.csv", "-m", "accuracy").stdout.splitlines()
    assert [line.strip() for line in lines[17:]] == [
        "━━ digits: accuracy 0.99",
        "━━ history.csv: accuracy 0.99",
    ]


def test_a_picture(folder, tmp_path):
    picture = tmp_path / "curve.png"
    done = run(folder, "-o", picture, "--log")
    assert done.stdout == f"{picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib(folder, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    done = run(folder, "-o", "curve.png")
    assert done.exit_code == 2
    assert "pip install 'shardwise[trainer]'" in done.stderr


def test_mistakes(folder, tmp_path):
    absent = run(tmp_path / "absent")
    assert absent.exit_code == 2
    assert "name a folder that `shardwise run` wrote" in absent.stderr
    metric = run(folder, "-m", "auc")
    assert metric.exit_code == 2
    assert "has no column 'auc'; it has epoch, loss, learningRate, evaluationLoss" in metric.stderr
    (folder / "history.csv").write_text("a,b\n1,2\n")
    assert "has no column 'step'" in run(folder).stderr
    (folder / "history.csv").write_text("step,loss\n1,\n")
    assert "nothing to draw" in run(folder).stderr


def test_a_place_that_cannot_be_written(folder):
    done = run(folder, "-o", "/nowhere/curve.png")
    assert done.exit_code == 2
    assert "--output: /nowhere/curve.png: No such file or directory" in done.stderr


def test_a_logarithmic_axis_is_labelled_in_values():
    course = Course("loss", [(1.0, 100.0), (2.0, 1.0), (3.0, 0.01)])
    lines = drawn([course], 40, 5, True, PLAIN)
    marks = [line.split("┤")[0].strip() for line in lines[:5]]
    assert marks == ["100", "", "1", "", "0.01"]
    assert drawn([Course("x", [(1.0, float("nan"))])], 40, 5, False, PLAIN) == ["no finite value"]
