"""Tasks in the live picture, in lines, in `describe` and `explain`; orders and fronts."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from samples import NOW, job, pool, task
from test_cli_display import REPORT, STARTED

from shardwise.cli.display import display
from shardwise.cli.view.axes import axes
from shardwise.cli.view.describe import describe, progress_words
from shardwise.cli.view.explain import explain
from shardwise.cli.view.local import as_job
from shardwise.cli.view.rows import (
    Objective,
    Row,
    Tasks,
    best_so_far,
    bests,
    front,
    in_order,
    of_job,
    of_result,
    ranked,
)
from shardwise.cli.view.sight import Sight
from shardwise.cli.view.style import PLAIN
from shardwise.cli.view.tasks import cut, ended_lines, fraction, news
from shardwise.cli.view.watch import fleet, frame, progress_line
from shardwise.coordinator.report import TaskRow, TasksReport

FRAME = """\
sweep  Running  Training · for 5m00s
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸──────────────────────────────────  52 %
5/10 tasks · 3 pending · 2 running · 3 succeeded · 1 stopped · 1 failed · 1m10s left · 12,346 samples/s

tasks       ★ task-3: accuracy 0.93 · hidden=128 learning_rate=0.1
            task-5 ━━━━──────────── 60/240  hidden=192 learning_rate=0.1
            task-6 ──────────────── starts  2 workers  hidden=224 learning_rate=0.1
            ✗ task-4: UserCodeFailed: ValueError: no such file
workers     3/4 ready · members 3 · generation 12
            0 · · · ·
"""  # noqa: E501
BEST = TaskRow(
    name="task-3",
    state="Succeeded",
    parameters={"hidden": 128, "learning_rate": "0.1"},
    metrics={"loss": 0.2, "accuracy": 0.93},
    weights_sha256="ab" * 32,
    step=240,
    ended=1,
)
TASKS = TasksReport(
    total=4,
    pending=1,
    running=1,
    succeeded=1,
    failed=1,
    stopped=0,
    rows=(
        TaskRow(name="task-5", state="Running", step=60, total_steps=240, workers=2),
        TaskRow(name="task-1", state="Failed", reason="WorkerLost", message="gone"),
        BEST,
    ),
    best=BEST,
    utilization=0.95,
)
AIMS = {"objectives": [{"metric": "accuracy", "direction": "Maximize"}]}
points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)


def test_the_picture_of_a_job_with_tasks():
    sight = Sight()
    sight.take_job("ADDED", pool())
    assert "\n".join(frame(sight, NOW, 80, PLAIN)) + "\n" == FRAME


def test_a_local_run_has_the_same_rows():
    found = as_job("sweep", replace(REPORT, tasks=TASKS), STARTED, AIMS)
    sight = Sight()
    sight.take_job("MODIFIED", found)
    lines = frame(sight, NOW, 80, PLAIN)
    assert lines[1].endswith(" 56 %")  # two of four, and a quarter of one
    assert "tasks       ★ task-3: accuracy 0.93 · hidden=128 learning_rate=0.1" in lines
    assert "            task-5 ━━━━──────────── 60/240  2 workers" in lines
    assert "            ✗ task-1: WorkerLost: gone" in lines


def test_lines_where_nothing_can_be_drawn(capsys):
    with display("sweep", AIMS) as show:
        show(replace(REPORT, tasks=TASKS))
    assert capsys.readouterr().err == (
        "sweep: 2/4 tasks · 1 running · 1 failed · best task-3: accuracy 0.93 · 12 s left\n"
    )


def test_what_all_tasks_share_is_told_of_while_it_is_trained(capsys):
    shared = replace(REPORT.progress, stage="training that all tasks share")
    none = replace(TASKS, pending=4, running=0, succeeded=0, failed=0, best=None, rows=())
    report = replace(REPORT, tasks=none, progress=shared)
    with display("sweep", AIMS) as show:
        show(report)
    assert "0/4 tasks · training that all tasks share, step 120/460" in capsys.readouterr().err
    told = progress_words(as_job("sweep", report, STARTED, AIMS))
    assert "training that all tasks share, step 120" in told


def test_description():
    lines = describe(pool(), [], [], NOW, PLAIN)
    first = lines.index("Tasks:        " + FRAME.splitlines()[2].partition(" · 1m10s")[0])
    assert lines[first + 1 : first + 10] == [
        "              workers at tasks 95.3% of their time",
        "  Best:",
        "    NAME     STATE       HIDDEN   LEARNING_RATE   ACCURACY   STEPS   TIME",
        "    task-3   Succeeded   128      0.1             0.93       240     20s",
        "  Running:",
        "    NAME     STATE     HIDDEN   LEARNING_RATE   ACCURACY   STEPS    TIME",
        "    task-5   Running   192      0.1                        60/240   20s",
        "    task-6   Running   224      0.1                                 20s",
        "  Failed:",
    ]
    assert not any(line.startswith("Tasks:") for line in describe(job(), [], [], NOW, PLAIN))


def test_explanation_names_tasks_that_failed():
    lines = explain(pool(failed=4), [], [], NOW, width=80, paint=PLAIN)
    assert "  best task-3: accuracy 0.93 · hidden=128 learning_rate=0.1" in lines
    place = lines.index("Tasks that failed:")
    assert lines[place + 1 : place + 3] == [
        "  task-4: UserCodeFailed: ValueError: no such file",
        "  … and 3 more: see tasks.csv in the output folder",
    ]


def test_the_fleet_has_a_column_of_tasks_where_a_job_has_them():
    lines = fleet([pool(), job()], NOW, 120, PLAIN)
    assert lines[2].split()[5] == "TASKS"
    assert "5/10" in lines[4] and "10 %" not in lines[4]
    assert "TASKS" not in fleet([job()], NOW, 120, PLAIN)[2]


def test_lines_of_watch():
    before, now = of_job(pool()), of_job(pool(items=[task(5), task(2)], best=task(5)))
    assert news(None, before) == [
        "best so far task-3: accuracy 0.93 · hidden=128 learning_rate=0.1"
    ]
    assert news(before, now) == [
        "task-5 Succeeded · accuracy 0.95 · hidden=192 learning_rate=0.1",
        "best so far task-5: accuracy 0.95 · hidden=192 learning_rate=0.1",
    ]
    assert progress_line(pool()).startswith("sweep: 52 % 5/10 tasks · 3 pending")


ACCURACY = Objective("accuracy", False)


def row(name="t", state="Succeeded", ended=0, **figures):
    return Row(name=name, state=state, metrics=figures, ended=ended)


def tasks_of(*rows, best=None):
    counts = {key: sum(r.state.lower() == key for r in rows) for key in ("succeeded", "failed")}
    return Tasks(
        job="sweep", rows=rows, counts=counts, total=len(rows), objectives=(ACCURACY,), best=best
    )


def test_the_end_of_a_run():
    rows = [row(f"task-{n}", accuracy=0.9 + n / 100) for n in range(7)]
    failed = [Row(name=f"bad-{n}", state="Failed", reason="NotFinite") for n in range(6)]
    best = replace(rows[-1], weights="ab" * 32, parameters={"hidden": "128"})
    lines = ended_lines(tasks_of(*rows[:-1], best, *failed, best=best), PLAIN)
    assert lines[:2] == ["best task-6: accuracy 0.96; hidden 128", f"weightsSha256 {'ab' * 32}"]
    assert [line.replace("★", "").split()[0] for line in lines[4:9]] == [
        f"task-{n}" for n in (6, 5, 4, 3, 2)
    ]
    assert lines[-1] == "… and 1 more failed"
    assert lines[-2] == "failed bad-4: NotFinite"
    assert ended_lines(tasks_of(best, best=best), PLAIN) == lines[:2]


def test_failed_and_unfinished_tasks_rank_behind_any_result():
    rows = [
        row("failed", "Failed", accuracy=1.0),
        row("stopped", "Stopped", accuracy=0.99),
        row("worse", accuracy=0.1),
        row("nan", accuracy=math.nan),
        row("better", accuracy=0.2),
    ]
    assert [r.name for r in ranked(tasks_of(*rows))] == [
        *("better", "worse", "nan"),
        *("stopped", "failed"),
    ]


@given(points, st.booleans(), st.booleans())
def test_the_front_holds_what_no_other_point_dominates(found, least_x, least_y):
    def cost(point):
        return point[0] * (1 if least_x else -1), point[1] * (1 if least_y else -1)

    def dominated(point):
        return any(
            cost(other) != cost(point)
            and all(a <= b for a, b in zip(cost(other), cost(point), strict=True))
            for other in found
        )

    ahead = front(found, (least_x, least_y))
    assert sorted(ahead) == [n for n, point in enumerate(found) if not dominated(point)]
    assert [found[n][0] for n in ahead] == sorted(found[n][0] for n in ahead)


@given(st.lists(st.floats(-1e6, 1e6), max_size=20), st.booleans())
def test_the_best_so_far(values, least):
    better = min if least else max
    assert best_so_far(values, least) == [better(values[: n + 1]) for n in range(len(values))]


def test_what_was_stopped_is_never_the_best_so_far():
    rows = [row("a", "Stopped", accuracy=0.9), row("b", accuracy=0.5), row("c", accuracy=0.6)]
    found = bests(rows, ACCURACY)
    assert math.isnan(found[0]) and found[1:] == [0.5, 0.6]


def test_the_order_of_ends():
    rows = [
        row("b", ended=2, accuracy=0.5),
        row("x", "Failed", ended=3),
        row("a", ended=1, accuracy=1),
    ]
    assert [r.name for r in in_order(tasks_of(*rows), ACCURACY)] == ["a", "b"]
    found = in_order(of_job(pool()), ACCURACY)
    assert [r.name for r in found] == ["task-3", "task-0", "task-1", "task-2"]


def test_axes_lie_by_value_by_ratio_or_by_place():
    def found(values, figures=(0.1, 0.2, 0.3)):
        rows = [
            Row(name=f"t{n}", state="Succeeded", parameters={} if v is None else {"p": v})
            for n, v in enumerate(values)
        ]
        return axes(tasks_of(*rows), rows, [])[0]

    few = found(["8", "10", "8"])
    assert (few.places, few.marks) == ((0.0, 1.0, 0.0), ((0.0, "8"), (1.0, "10")))
    ratio = found([str(10.0**n) for n in range(9)])
    assert ratio.places[4] == 0.5 and ratio.marks[0] == (0.0, "1")
    even = found([str(n + 1) for n in range(9)])
    assert even.places[4] == 0.5 and even.marks[-1] == (1.0, "9")
    absent = found(["adam", None, "sgd"])
    assert absent.places == (0.5, 0.0, 1.0)
    assert absent.marks[0] == (0.0, "none")
    assert found(["x"] * 3).places == (0.5, 0.5, 0.5)


def test_values_are_shortened_for_people():
    assert cut("0.31622776601683794") == "0.3162"
    assert cut("0.1") == "0.1"
    assert cut("a" * 40) == "a" * 24 + "…"
    assert cut("128") == "128"


def test_a_front_needs_two_objectives():
    """A pool with one writes its best task there."""
    found = {"tasks": [], "pareto": ["a"], "objectives": AIMS["objectives"]}
    assert of_result(found).pareto == ()


@given(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1e9), st.floats(0, 1e9))
def test_the_part_that_is_done_is_one(ended, running, step, total):
    rows = tuple(Row(name=f"{n}", state="Running", step=step, total=total) for n in range(running))
    found = Tasks(job="j", rows=rows, counts={"succeeded": ended}, total=ended + running)
    assert 0 <= fraction(found) <= 1
