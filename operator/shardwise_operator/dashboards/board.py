"""A whole dashboard: its rows of panels laid out, its variables, annotations and links."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shardwise_operator.dashboards.panels import DATASOURCE, GRID_COLUMNS, Json, Panel

TAG = "shardwise"
FLEET, JOB, OPERATOR = "shardwise-fleet", "shardwise-job", "shardwise-operator"
TITLES = {
    FLEET: "Shardwise / Fleet",
    JOB: "Shardwise / Job",
    OPERATOR: "Shardwise / Operator",
}
SCHEMA_VERSION = 39


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A heading, and the panels under it from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """Marks on every graph where an expression is above zero."""

    name: str
    expr: str
    colour: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard."""

    uid: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Json, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    since: str = "now-1h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)

    def json(self) -> Json:
        """The dashboard as Grafana imports it."""
        return {
            "uid": self.uid,
            "title": TITLES[self.uid],
            "description": self.description,
            "tags": [TAG],
            "editable": True,
            "graphTooltip": 1,  # the crosshair is shared
            "refresh": "30s",
            "schemaVersion": SCHEMA_VERSION,
            "time": {"from": self.since, "to": "now"},
            "timezone": "browser",
            "links": [link(uid) for uid in TITLES if uid != self.uid],
            "templating": {"list": [datasource(), *self.variables]},
            "annotations": {"list": [_annotation(found) for found in self.annotations]},
            "panels": _placed(self.rows),
        }

    def text(self) -> str:
        return json.dumps(self.json(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def datasource() -> Json:
    """Which Prometheus: the dashboards name none."""
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
    }


def variable(name: str, label: str, query: str, *, several: bool = False) -> Json:
    """A list to choose from: the values of a label."""
    found: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 7,  # natural order
        "hide": 0,
        "multi": several,
        "includeAll": several,
    }
    if several:
        found |= {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}
    return found


def link(uid: str) -> Json:
    """A link in the head of a dashboard that keeps the time range and the variables."""
    return {
        "type": "link",
        "title": TITLES[uid].rpartition("/ ")[2],
        "tooltip": f"Open {TITLES[uid]}",
        "icon": "dashboard",
        "url": f"/d/{uid}",
        "keepTime": True,
        "includeVars": True,
        "asDropdown": False,
        "tags": [],
        "targetBlank": False,
    }


def job_link() -> list[Json]:
    """From a row or series with these labels to the job's own dashboard."""
    return [
        {
            "title": "Open the job ${__field.labels.job_name}",
            "url": (
                f"/d/{JOB}?var-datasource=${{datasource}}"
                "&var-namespace=${__field.labels.namespace}"
                "&var-job=${__field.labels.job_name}&${__url_time_range}"
            ),
        }
    ]


def row_job_link() -> list[Json]:
    """The same from a cell of a table."""
    return [
        {
            "title": "Open the job ${__data.fields.Job}",
            "url": (
                f"/d/{JOB}?var-datasource=${{datasource}}"
                "&var-namespace=${__data.fields.Namespace}"
                "&var-job=${__data.fields.Job}&${__url_time_range}"
            ),
        }
    ]


def _annotation(found: Annotation) -> Json:
    return {
        "name": found.name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": found.colour,
        "expr": " ".join(found.expr.split()),
        "step": "15s",
        "titleFormat": found.title,
        "textFormat": found.text,
        "useValueForTime": False,
    }


def _placed(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Panels from left to right and from top to bottom, each with a number."""
    placed: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        heading = {
            "id": len(placed) + 1,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": GRID_COLUMNS, "x": 0, "y": y},
            "panels": [],
        }
        placed.append(heading)
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > GRID_COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            placed.append(panel.json(len(placed) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed
