"""Parts of a dashboard as Grafana's JSON has them: queries, panels, and a grid that places them.

Every panel must say what it shows and what to do about it; colours mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

GRID_COLUMNS = 24
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}

LAST_VALUE: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}

# What things are coloured as, on every panel of every dashboard.
COLOURS: Mapping[str, str] = {
    "productive": "green",
    "rendezvous": "yellow",
    "recovery": "red",
    "checkpoint": "blue",
    "retried": "orange",
    "waiting": "#8e8e8e",
    "computing": "green",
    "exchanging": "blue",
    "data": "orange",
    "training": "green",
    "standby": "blue",
    "missing": "red",
    "Running": "green",
    "Starting": "light-blue",
    "Recovering": "orange",
    "Waiting": "yellow",
    "Pending": "#8e8e8e",
    "Suspending": "light-purple",
    "Suspended": "purple",
    "Succeeded": "dark-green",
    "Failed": "red",
    "Invalid": "dark-red",
    "Stopped": "light-yellow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One expression of PromQL."""

    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False
    heatmap: bool = False

    def json(self, letter: str) -> Json:
        shape = "table" if self.table else "heatmap" if self.heatmap else "time_series"
        return {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": " ".join(self.expr.split()),
            "format": shape,
            "instant": self.instant,
            "legendFormat": self.legend or "__auto",
            "range": not self.instant,
            "refId": letter,
        }


def quantiles(buckets: str) -> tuple[Query, ...]:
    """The middle and the slow end of a histogram, from its series of buckets."""
    return tuple(
        Query(
            expr=f"histogram_quantile({part}, sum by (le) (rate({buckets}[$__rate_interval])))",
            legend=legend,
        )
        for part, legend in ((0.5, "half"), (0.95, "95 %"), (0.99, "99 %"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel without its place."""

    type: str
    title: str
    description: str
    queries: tuple[Query, ...]
    width: int
    height: int
    unit: str
    options: Json = field(default_factory=dict)
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    empty_means: str = ""
    """What it means that there is no data, where that is as it should be; else ""."""

    def json(self, number: int, x: int, y: int) -> Json:
        defaults: Json = {"unit": self.unit, **self.defaults}
        if self.empty_means:
            defaults["noValue"] = self.empty_means
        return {
            "id": number,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [
                query.json(chr(ord("A") + place)) for place, query in enumerate(self.queries)
            ],
            "fieldConfig": {"defaults": defaults, "overrides": list(self.overrides)},
            "options": self.options,
            **({"transformations": list(self.transformations)} if self.transformations else {}),
        }


def thresholds(*steps: tuple[float | None, str]) -> Json:
    """Colours by value, each from its number on; the first from None."""
    return {
        "mode": "absolute",
        "steps": [{"color": colour, "value": value} for value, colour in steps],
    }


def by_name(name: str, **properties: Any) -> Json:
    """An override of one series or column; `custom_width` stands for `custom.width`."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [
            {"id": key.replace("_", ".", 1) if key.startswith("custom_") else key, "value": value}
            for key, value in properties.items()
        ],
    }


def coloured(names: Iterable[str]) -> tuple[Json, ...]:
    """Each of these series in its own colour."""
    return tuple(
        by_name(name, color={"mode": "fixed", "fixedColor": COLOURS[name]}) for name in names
    )


def stat(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    width: int = 3,
    steps: Json | None = None,
    text_mode: str = "auto",
    decimals: int | None = None,
    overrides: tuple[Json, ...] = (),
    empty_means: str = "",
    spark: bool = False,
) -> Panel:
    """A figure to be read from across the room."""
    defaults: Json = {"color": {"mode": "thresholds"}}
    defaults["thresholds"] = steps or thresholds((None, "text"))
    if decimals is not None:
        defaults["decimals"] = decimals
    return Panel(
        type="stat",
        title=title,
        description=description,
        queries=queries,
        width=width,
        height=4,
        unit=unit,
        defaults=defaults,
        overrides=overrides,
        empty_means=empty_means,
        options={
            "colorMode": "value",
            "graphMode": "area" if spark else "none",
            "justifyMode": "center",
            "orientation": "auto",
            "reduceOptions": LAST_VALUE,
            "textMode": text_mode,
        },
    )


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    overrides: tuple[Json, ...] = (),
    minimum: float | None = 0,
    maximum: float | None = None,
    logarithmic: bool = False,
    empty_means: str = "",
) -> Panel:
    """Lines over time; stacked ones are filled."""
    custom: Json = {
        "drawStyle": "line",
        "fillOpacity": 60 if stacked else 8,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
    }
    if logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    defaults: Json = {"color": {"mode": "palette-classic"}, "custom": custom}
    if minimum is not None:
        defaults["min"] = minimum
    if maximum is not None:
        defaults["max"] = maximum
    return Panel(
        type="timeseries",
        title=title,
        description=description,
        queries=queries,
        width=width,
        height=height,
        unit=unit,
        defaults=defaults,
        overrides=overrides,
        empty_means=empty_means,
        options={
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def bars(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 8,
    height: int = 8,
    steps: Json | None = None,
    overrides: tuple[Json, ...] = (),
    maximum: float | None = None,
    empty_means: str = "",
) -> Panel:
    """One bar a series: who is the longest, and by how much."""
    defaults: Json = {"color": {"mode": "thresholds"}, "min": 0}
    defaults["thresholds"] = steps or thresholds((None, "blue"))
    if maximum is not None:
        defaults["max"] = maximum
    return Panel(
        type="bargauge",
        title=title,
        description=description,
        queries=queries,
        width=width,
        height=height,
        unit=unit,
        defaults=defaults,
        overrides=overrides,
        empty_means=empty_means,
        options={
            "displayMode": "basic",
            "minVizHeight": 16,
            "minVizWidth": 8,
            "namePlacement": "auto",
            "orientation": "horizontal",
            "reduceOptions": LAST_VALUE,
            "showUnfilled": True,
            "sizing": "auto",
            "valueMode": "color",
        },
    )


def timeline(
    title: str,
    description: str,
    *queries: Query,
    names: Sequence[str],
    colours: Sequence[str],
    width: int = 24,
    height: int = 7,
    empty_means: str = "",
) -> Panel:
    """A bar a series, in the colour of the state that it is in: the value 1 is the first name."""
    mapping = {
        str(place): {"color": colour, "index": place - 1, "text": name}
        for place, (name, colour) in enumerate(zip(names, colours, strict=True), 1)
    }
    return Panel(
        type="state-timeline",
        title=title,
        description=description,
        queries=queries,
        width=width,
        height=height,
        unit="none",
        empty_means=empty_means,
        defaults={
            "color": {"mode": "thresholds"},
            "custom": {"fillOpacity": 80, "insertNulls": False, "lineWidth": 0, "spanNulls": False},
            "mappings": [{"type": "value", "options": mapping}],
            "thresholds": thresholds((None, "text")),
        },
        options={
            "alignValue": "center",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "mergeValues": True,
            "rowHeight": 0.85,
            "showValue": "never",
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def heatmap(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    scheme: str = "Oranges",
    axis_unit: str = "short",
    width: int = 12,
    height: int = 8,
    empty_means: str = "",
) -> Panel:
    """A row a series or bucket, darker where the value is higher."""
    return Panel(
        type="heatmap",
        title=title,
        description=description,
        queries=queries,
        width=width,
        height=height,
        unit=unit,
        empty_means=empty_means,
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"unit": unit},
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": False,
                "scale": "exponential",
                "scheme": scheme,
                "steps": 64,
            },
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": axis_unit},
        },
    )


def table(
    title: str,
    description: str,
    *queries: Query,
    columns: Sequence[tuple[str, Json]],
    renamed: Mapping[str, str],
    links: Mapping[str, list[Json]],
    width: int = 24,
    height: int = 10,
    unit: str = "short",
    empty_means: str = "",
) -> Panel:
    """The queries side by side, a row for each set of labels that they share.

    Args:
        columns: for each query its heading, and further properties of its cells. Without a
            heading only the query's labels are shown.
        renamed: headings of labels.
        links: of cells, by heading.
    """
    fields = [f"Value #{chr(ord('A') + place)}" for place in range(len(queries))]
    headings = {
        name: heading for name, (heading, _) in zip(fields, columns, strict=True) if heading
    }
    hidden = ["Time", *(name for name in fields if name not in headings)]
    return Panel(
        type="table",
        title=title,
        description=description,
        queries=queries,
        width=width,
        height=height,
        unit=unit,
        empty_means=empty_means,
        defaults={"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}},
        overrides=(
            *(by_name(heading, **properties) for heading, properties in columns if heading),
            *(by_name(heading, links=found) for heading, found in links.items()),
        ),
        options={"cellHeight": "sm", "showHeader": True},
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(hidden, True),
                    "renameByName": {**renamed, **headings},
                },
            },
        ),
    )
