"""Dashboards, docs and alerts follow from the declarations, and use nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from boards import ROOT, VARIABLES, Question, annotations, boards, panels, questions
from debian import program

from shardwise.api import metrics as declared

ALERTS = ROOT / "charts" / "shardwise" / "rules" / "alerts.yaml"
GROUPS = yaml.safe_load(ALERTS.read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
SERIES = {series: family for family in declared.FAMILIES for series in family.series}
# What Prometheus itself tells of each target.
OF_PROMETHEUS = {"scrape_duration_seconds"}
# What the scrape adds: the target's own, and what the chart's PodMonitor takes from pods' labels.
OF_TARGETS = {"instance", "namespace", "job_name", "worker"}


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shardwise_operator.dashboards", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def walk(node: Any) -> Iterator[Any]:
    """All parts of an expression."""
    yield node
    for name in ("expr", "lhs", "rhs", "param"):
        inner = getattr(node, name, None)
        if isinstance(inner, promql_parser.Expr):
            yield from walk(inner)
    for argument in getattr(node, "args", ()):
        yield from walk(argument)


def labels_of(selector: Any) -> set[str]:
    """The labels that the selected series have.

    Asserts that the metric is declared, and that what is matched can be matched.
    """
    name = selector.name
    if name in declared.PROCESS_SERIES or name in OF_PROMETHEUS:
        known = OF_TARGETS
        families = None
    else:
        assert name in SERIES, f"{name} is not declared"
        families = SERIES[name]
        known = {*families.labels, "instance", *({"le"} if name.endswith("_bucket") else ())}
    for matcher in selector.matchers.matchers:
        assert matcher.name in known, f"{name} has no label {matcher.name}"
        if families is not None and families.values and matcher.name == families.labels[-1]:
            for value in matcher.value.split("|"):
                assert value in families.values, f"{matcher.name} of {name} is never {value}"
    return known


def check(expr: str) -> None:
    """Asserts that the expression parses, and rests on declared metrics and labels alone."""
    tree = promql_parser.parse(expr)
    known: set[str] = set()
    nodes = list(walk(tree))
    for node in nodes:
        if isinstance(node, promql_parser.MatrixSelector):
            known |= labels_of(node.vector_selector)
        elif isinstance(node, promql_parser.VectorSelector):
            known |= labels_of(node)
    assert known, f"{expr} selects nothing"
    for node in nodes:
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
            assert set(modifier.labels) <= known, f"{modifier.labels} in {expr}"
        elif isinstance(node, promql_parser.BinaryExpr) and modifier is not None:
            matching = modifier.matching.labels if modifier.matching else ()
            assert {*matching, *(modifier.group_labels or ())} <= known, expr


@pytest.mark.parametrize("question", [*questions(), *annotations()], ids=str)
def test_an_expression_uses_only_what_is_declared(question: Question) -> None:
    check(question.filled(VARIABLES))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_uses_only_what_is_declared(rule: dict[str, Any]) -> None:
    check(rule["expr"])


@pytest.mark.parametrize(
    ("expr", "tells"),
    [
        ("shardwise_job_stepp", "not declared"),
        ('shardwise_job_step{rank="1"}', "no label rank"),
        ('shardwise_job_seconds_total{kind="produktive"}', "never produktive"),
        ("sum by (rank) (shardwise_job_step)", "rank"),
        ("1 + 1", "selects nothing"),
    ],
)
def test_the_check_finds_a_mistake(expr: str, tells: str) -> None:
    with pytest.raises(AssertionError, match=tells):
        check(expr)


@pytest.mark.parametrize("board", boards().values(), ids=boards().keys())
def test_a_dashboard_keeps_the_conventions(board: dict[str, Any]) -> None:
    assert board["tags"] == ["shardwise"]
    assert board["graphTooltip"] == 1
    identities = [panel["id"] for panel in board["panels"]]
    assert len(set(identities)) == len(identities)
    assert {link["url"] for link in board["links"]} == {
        f"/d/{uid}" for uid in boards() if uid != board["uid"]
    }
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        place = f"{board['uid']} / {panel['title']}"
        assert panel["description"].endswith("."), place
        assert panel["fieldConfig"]["defaults"]["unit"], place
        for part in (panel, *panel["targets"]):
            assert part["datasource"]["uid"] == "${datasource}", place
        for query in panel["targets"]:
            assert "__rate_interval" in query["expr"] or "rate(" not in query["expr"], place


@pytest.mark.parametrize("board", boards().values(), ids=boards().keys())
def test_panels_lie_side_by_side_on_the_grid(board: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_every_variable_is_one_of_the_dashboard() -> None:
    for uid, board in boards().items():
        names = {variable["name"] for variable in board["templating"]["list"]}
        used = set()
        for question in (*questions(), *annotations()):
            if question.board == uid:
                used |= set(re.findall(r"\$(\w+)", question.expr))
        assert used - {"__rate_interval", "__range"} <= names


def test_every_metric_of_a_job_and_a_worker_is_on_a_dashboard() -> None:
    text = " ".join(question.expr for question in (*questions(), *annotations()))
    unused = {
        family.name
        for family in declared.FAMILIES
        if not any(re.search(rf"\b{series}\b", text) for series in family.series)
    }
    # For scripts and alerts: each of these is told in another way on the dashboards.
    assert unused == {
        "shardwise_job_created_timestamp_seconds",
        "shardwise_job_generation",
        "shardwise_job_last_step_timestamp_seconds",
        "shardwise_job_restarts_total",
        "shardwise_job_samples_total",
        "shardwise_job_workers_min",
        "shardwise_worker_rank",
        "shardwise_worker_step",
    }


def test_every_alert_says_what_to_do() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("Shardwise*.md")}
    assert pages == {rule["alert"] for rule in RULES}
    for rule in RULES:
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f"/{rule['alert']}.md")
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_prometheus_takes_the_alerts() -> None:
    promtool("check", "rules", str(ALERTS))


def test_the_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(ROOT / "tests" / "observability" / "alerts.test.yaml"))


def test_every_alert_has_a_unit_test() -> None:
    tests = yaml.safe_load((ROOT / "tests" / "observability" / "alerts.test.yaml").read_text())
    fired = {
        case["alertname"]
        for test in tests["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in RULES}


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [str(program("promtool")), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
