"""`tasks`: what it prints of a job in a cluster and of a folder, in which order and form."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml
from cli_api import JOBS, SECONDS, wait_for_call
from click.testing import CliRunner
from samples import job, pool, task

from shardwise.cli.main import main

TABLE = """\
5/10 tasks · 3 pending · 2 running · 3 succeeded · 1 stopped · 1 failed
★ best task-3: accuracy 0.93 · hidden=128 learning_rate=0.1

    NAME     STATE       HIDDEN   LEARNING_RATE   ACCURACY   STEPS    TIME   REASON
★   task-3   Succeeded   128      0.1             0.93       240      20s
    task-2   Succeeded   96       0.1             0.92       240      20s
    task-1   Succeeded   64       0.1             0.91       240      20s
    task-5   Running     192      0.1                        60/240   20s
    task-6   Running     224      0.1                                 20s
    task-0   Stopped     32       0.1             0.9        48       20s
    task-4   Failed      160      0.1                        240      20s    UserCodeFailed
"""
RESULT = {
    "job": "sweep",
    "objectives": [
        {"metric": "accuracy", "direction": "Maximize"},
        {"metric": "bytes", "direction": "Minimize"},
    ],
    "pareto": ["task-0", "task-2"],
    "best": {"name": "task-2"},
    "tasks": [
        {
            "name": f"task-{number}",
            "state": state,
            "parameters": {"bits": bits, "learning_rate": "0.1"},
            "metrics": {"loss": 0.5, "accuracy": accuracy, "bytes": bytes_},
            "weightsSha256": "ab" * 32,
            "steps": 10,
            "seconds": 1.5,
            "workers": 1,
            "ended": ended,
            "reason": "",
            "message": "",
        }
        for number, state, bits, accuracy, bytes_, ended in (
            (0, "Succeeded", 4, 0.8, 1000, 2),
            (1, "Succeeded", 10, 0.85, 5000, 3),
            (2, "Succeeded", 8, 0.9, 2000, 1),
        )
    ],
}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    (made / "result.json").write_text(json.dumps(RESULT))
    return made


def local(*arguments):
    return CliRunner().invoke(main, ["tasks", *map(str, arguments)], prog_name="shardwise")


def test_a_job_in_a_cluster(api, call):
    api.put(JOBS, pool())
    done = call("tasks", "sweep")
    assert (done.exit_code, done.stdout) == (0, TABLE)
    assert done.stderr.startswith("7 of 10 tasks: the status holds no more; tasks.csv")


def test_the_best_by_all_objectives_comes_first_and_the_front_is_marked(folder):
    lines = local(folder).stdout.splitlines()
    assert lines[:3] == [
        "3/3 tasks · 3 succeeded",
        "★ best task-2: accuracy 0.9, bytes 2,000 · bits=8 learning_rate=0.1",
        "◆ 2 tasks that no other is better than in every objective",
    ]
    assert [line.split()[:2] for line in lines[5:]] == [
        ["★", "task-2"],
        ["task-1", "Succeeded"],
        ["◆", "task-0"],
    ]
    assert local(folder / "result.json").stdout == local(folder).stdout


@pytest.mark.parametrize(
    ("arguments", "order"),
    [
        (["--sort", "bytes"], [0, 2, 1]),
        (["--sort", "accuracy", "--reverse"], [0, 1, 2]),
        (["--sort", "bits"], [0, 2, 1]),
        (["--sort", "ended"], [2, 0, 1]),
        (["--sort", "name", "--reverse"], [2, 1, 0]),
        (["--reverse"], [0, 1, 2]),
    ],
)
def test_orders(folder, arguments, order):
    done = local(folder, "-o", "name", *arguments)
    assert done.stdout.split() == [f"task-{number}" for number in order]


def test_a_column_that_is_not_there(folder):
    done = local(folder, "--sort", "auc")
    assert done.exit_code == 2
    assert "--sort: the tasks have no 'auc'; they have name, state, steps" in done.stderr
    assert "bits, learning_rate, accuracy, bytes, loss" in done.stderr


def test_forms(folder, api, call):
    rows = list(csv.DictReader(io.StringIO(local(folder, "-o", "csv").stdout)))
    assert [row["name"] for row in rows] == ["task-2", "task-1", "task-0"]
    assert (rows[0]["bits"], rows[0]["bytes"], rows[0]["weightsSha256"]) == (
        "8",
        "2000.0",
        "ab" * 32,
    )
    found = json.loads(local(folder, "-o", "json").stdout)
    assert (found["best"], found["pareto"], found["counts"]["succeeded"]) == (
        "task-2",
        ["task-0", "task-2"],
        3,
    )
    assert found["objectives"] == RESULT["objectives"]
    assert found["tasks"][0]["metrics"]["accuracy"] == 0.9
    api.put(JOBS, pool())
    told = yaml.safe_load(call("tasks", "sweep", "-o", "yaml").stdout)
    assert told["tasks"][-1]["message"] == "ValueError: no such\nfile"
    wide = call("tasks", "sweep", "-o", "wide").stdout.splitlines()
    assert wide[3].split()[-4:] == ["WORKERS", "WEIGHTS", "REASON", "MESSAGE"]
    assert wide[-1].endswith("UserCodeFailed   ValueError: no such file")


def test_a_run_that_did_not_come_to_its_end(tmp_path):
    for number in range(2):
        made = tmp_path / "tasks" / f"task-{number}"
        made.mkdir(parents=True)
        written = {"path": str(made), "parameters": {"hidden": 8}, "metrics": {"loss": 0.5}}
        (made / "result.json").write_text(json.dumps({**written, "steps": 4, "workers": 1}))
    done = local(tmp_path)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()[3:]] == ["task-0", "task-1"]
    assert "its run has not come to its end" in done.stderr


def test_what_has_no_tasks(tmp_path, api, call):
    api.put(JOBS, job())
    done = call("tasks", "digits")
    assert (done.exit_code, "has no spec.tasks: it is one training" in done.stderr) == (2, True)
    assert call("tasks", "swep").exit_code == 4
    assert "name a folder that `shardwise run` wrote" in local(tmp_path).stderr
    (tmp_path / "result.json").write_text('{"steps": 3}')
    assert "is of one training, not of many tasks" in local(tmp_path).stderr
    (tmp_path / "result.json").write_text("{")
    assert local(tmp_path).exit_code == 2
    assert "No such file" in local("./absent").stderr


def test_a_job_whose_tasks_have_not_begun(api, call):
    found = pool()
    del found["status"]["tasks"]
    api.put(JOBS, found)
    assert call("tasks", "sweep").stdout == "0/0 tasks\n"


def test_watching_tells_of_each_end_until_the_job_ends(api, beside):
    api.put(JOBS, pool())
    done = beside("tasks", "sweep", "-w")
    wait_for_call(api, JOBS, watch="1")
    items = [task(6, "Running", step=9), task(5), task(2)]
    counts = {"running": 1, "succeeded": 4}
    api.update("sweep", tasks={"items": items, "best": task(5), **counts})
    api.update("sweep", state="Succeeded", tasks={"running": 0, "succeeded": 5})
    result = done.result(SECONDS)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "best so far task-3: accuracy 0.93 · hidden=128 learning_rate=0.1",
        "task-5 Succeeded · accuracy 0.95 · hidden=192 learning_rate=0.1",
        "best so far task-5: accuracy 0.95 · hidden=192 learning_rate=0.1",
        "sweep: Succeeded: 7/10 tasks · 3 pending · 5 succeeded · 1 stopped · 1 failed",
    ]


def test_watching_ends_where_it_cannot_go_on(folder, api, call):
    api.put(JOBS, pool())
    late = call("tasks", "sweep", "-w", "--timeout", "0.2s")
    assert (late.exit_code, "has not ended within 0 s" in late.stderr) == (3, True)
    assert call("tasks", "sweep", "-w", "-o", "json").exit_code == 2
    assert "is a folder" in local(folder, "-w").stderr
    api.put(JOBS, pool("Failed"))
    assert call("tasks", "sweep", "-w").exit_code == 1


def test_get_shows_tasks_where_a_job_has_them(api, call):
    api.put(JOBS, job())
    assert "TASKS" not in call("get").stdout
    api.put(JOBS, pool())
    lines = call("get").stdout.splitlines()
    assert lines[0].split()[-2:] == ["TASKS", "BEST"]
    assert lines[2].split()[-2:] == ["5/10", "task-3"]
