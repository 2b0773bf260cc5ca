"""A real Prometheus scrapes real exporters: every panel has its data, and a job's series end."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from functools import partial

import pytest
from boards import ROOT, annotations, boards, filled, questions
from debian import program
from draw import Picture
from server import Prometheus, until
from simulation import STRAGGLER, WORKERS, Fleet, served

INTERVAL = "500ms"
DATA_SECONDS = 60.0
VARIABLES = {
    "namespace": "team-a",
    "job": "digits",
    "worker": ".+",
    "__rate_interval": "5s",
    "__range": "5m",
}
# On the fleet's dashboard any of several namespaces may be chosen.
ALL = VARIABLES | {"namespace": ".+"}
ALERTS = ROOT / "charts" / "shardwise" / "rules" / "alerts.yaml"


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture(scope="module")
def prometheus(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with served(fleet) as targets, Prometheus(folder, targets, INTERVAL, [ALERTS]) as server:
        yield server


@pytest.mark.parametrize("question", questions(), ids=str)
def test_a_panel_has_data(prometheus: Prometheus, question) -> None:
    expr = question.filled(ALL if question.board == "shardwise-fleet" else VARIABLES)
    found = until(f"data for {question}", lambda: prometheus.query(expr), DATA_SECONDS)
    assert all(series["value"][1] not in ("NaN", "+Inf") for series in found), found


@pytest.mark.parametrize("question", annotations(), ids=str)
def test_an_annotation_marks_what_happened(prometheus: Prometheus, question) -> None:
    expr = question.filled(VARIABLES)
    if question.panel == "Starts":
        assert prometheus.query(expr) == []  # it has not begun anew
        return
    found = until(f"marks of {question}", lambda: prometheus.query(expr), DATA_SECONDS)
    cause = {"Recoveries": "Killed", "Scaling": "Joined"}[question.panel]
    assert [series["metric"] for series in found] == [{"cause": cause}]


def test_variables_offer_what_there_is(prometheus: Prometheus) -> None:
    offered = {}
    for board in boards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                inner = variable["definition"].removeprefix("label_values(").removesuffix(")")
                selector, _, label = inner.rpartition(", ")
                for name, value in VARIABLES.items():
                    selector = selector.replace(f"${name}", value)
                offered[variable["name"]] = until(
                    f"values of {variable['name']}",
                    lambda selector=selector, label=label: prometheus.label_values(label, selector),
                    DATA_SECONDS,
                )
    assert offered["namespace"] == ["team-a", "team-b"]
    assert offered["job"] == ["digits", "full-disk"]
    assert offered["worker"] == [str(index) for index in range(WORKERS)]


def test_the_straggler_shows(prometheus: Prometheus) -> None:
    (heat,) = (found for found in questions() if found.panel.startswith("Stragglers"))

    def own_times() -> dict[str, float]:
        found = prometheus.query(heat.filled(VARIABLES))
        return {series["metric"]["worker"]: float(series["value"][1]) for series in found}

    wanted = {str(worker): 0.02 for worker in range(WORKERS)} | {str(STRAGGLER): 0.042}
    until(
        "own times of all workers",
        lambda: own_times() == pytest.approx(wanted, rel=0.05),
        DATA_SECONDS,
    )


@pytest.mark.parametrize("uid", boards())
def test_the_pictures_of_the_docs_can_be_drawn(prometheus: Prometheus, uid: str) -> None:
    fill = partial(filled, variables=ALL if uid == "shardwise-fleet" else VARIABLES)

    def whole() -> bool:
        # A scrape that fails on a busy machine leaves nothing to show at its moment.
        end = time.time() // 1
        picture = Picture(boards()[uid], prometheus, fill, (end - 20, end, 1.0))
        picture.draw()
        return not picture.empty

    until("a picture with all its panels", whole, DATA_SECONDS)


def test_the_alerts_are_evaluated(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict]:
        rules = prometheus.rules()
        return [] if any(rule["health"] == "unknown" for rule in rules) else rules

    rules = until("an evaluation of each alert", evaluated, DATA_SECONDS)
    assert {rule["health"] for rule in rules} == {"ok"}
    states = {rule["name"]: rule["state"] for rule in rules}
    assert states["ShardwiseOperatorDown"] == "inactive"
    assert states["ShardwiseJobWorkersBelowMin"] == "pending"  # the starved one, for 10 minutes


def test_the_exporters_pass_promtool(prometheus: Prometheus) -> None:
    targets = prometheus.query("up == 1")
    assert len(targets) == 1 + WORKERS
    for found in targets[:2] + targets[-1:]:
        url = f"http://{found['metric']['instance']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            done = subprocess.run(
                [str(program("promtool")), "check", "metrics"],
                input=answer.read(),
                capture_output=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout + done.stderr == b""


def test_a_jobs_series_end_with_the_job(prometheus: Prometheus, fleet: Fleet) -> None:
    expr = 'count({__name__=~"shardwise_job_.+", job_name="broken"})'
    until("series of the job", lambda: prometheus.query(expr), DATA_SECONDS)
    fleet.jobs = [job for job in fleet.jobs if job["metadata"]["name"] != "broken"]
    until("the end of its series", lambda: not prometheus.query(expr), DATA_SECONDS)
