"""The dashboards as Grafana has them: their queries with the variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "charts" / "shardwise" / "dashboards").glob("*.json"))
VARIABLES = {
    "namespace": ".+",
    "job": "digits",
    "worker": ".+",
    "__rate_interval": "1m",
    "__range": "1h",
}


def boards() -> dict[str, dict[str, Any]]:
    """The dashboards of the chart by their uid."""
    return {board["uid"]: board for board in map(_load, FILES)}


def _load(path: Path) -> dict[str, Any]:
    board: dict[str, Any] = json.loads(path.read_text())
    return board


def filled(expr: str, variables: Mapping[str, str]) -> str:
    """An expression with its variables replaced."""
    return re.sub(r"\$(\w+)", lambda found: variables[found[1]], expr)


@dataclass(frozen=True)
class Question:
    """One query of a dashboard."""

    board: str
    panel: str
    expr: str
    """With the variables as `$name`."""

    def filled(self, variables: Mapping[str, str]) -> str:
        return filled(self.expr, variables)

    def __str__(self) -> str:
        return f"{self.board} / {self.panel}: {self.expr}"


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels that show something: no rows."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def in_row(board: Mapping[str, Any], title: str) -> set[str]:
    """The titles of the panels in a row of a dashboard."""
    found: dict[str, set[str]] = {}
    row = ""
    for panel in board["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        if panel["type"] != "row":
            found.setdefault(row, set()).add(panel["title"])
    return found[title]


def questions() -> list[Question]:
    """All queries of all panels."""
    return [
        Question(uid, panel["title"], query["expr"])
        for uid, board in boards().items()
        for panel in panels(board)
        for query in panel["targets"]
    ]


def annotations() -> list[Question]:
    return [
        Question(uid, found["name"], found["expr"])
        for uid, board in boards().items()
        for found in board["annotations"]["list"]
    ]
