"""Draws the dashboards from a Prometheus's data, with matplotlib: pictures for docs/dashboards.md.

    python tests/observability/draw.py URL FOLDER --namespace NAMESPACE --job JOB [--seconds N]

Grafana itself cannot be had everywhere this runs. What is drawn are the same panels at the same
places with the same queries; how they look is this module's.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from boards import boards, filled
from client import Client
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from shardwise_operator.dashboards.panels import COLOURS as SERIES_COLOURS

COLUMN, LINE, GAP = 0.6, 0.34, 0.14
"""Inches of a column and a line of the grid, and between panels."""
COLOURS = {
    "green": "#56a64b",
    "dark-green": "#37872d",
    "red": "#e02f44",
    "dark-red": "#c4162a",
    "yellow": "#e0b400",
    "orange": "#ff780a",
    "blue": "#3274d9",
    "light-blue": "#8ab8ff",
    "light-yellow": "#fff899",
    "purple": "#a352cc",
    "light-purple": "#ca95e5",
    "text": "#24292e",
}
PALETTE = ("#56a64b", "#3274d9", "#ff780a", "#a352cc", "#e02f44", "#e0b400", "#37872d", "#8ab8ff")
Series = list[dict[str, Any]]


class Source(Protocol):
    def query(self, expr: str) -> Series: ...

    def query_range(self, expr: str, start: float, end: float, step: float) -> Series: ...


def colour(name: str) -> str:
    return COLOURS.get(name, name)


def shown(value: float, unit: str) -> str:
    """A value as Grafana writes it, more or less."""
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit in ("s", "dtdurations"):
        if 0 < value < 1:
            return f"{value * 1000:.3g} ms"
        if value < 120:
            return f"{value:.3g} s"
        return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"
    if unit == "bool":
        return "failed" if value else "well"
    if unit == "bytes":
        for name in ("B", "KiB", "MiB", "GiB"):
            if value < 1024:
                return f"{value:.3g} {name}"
            value /= 1024
        return f"{value:.3g} TiB"
    suffix = {"ops": "/s", "reqps": "/s"}.get(unit, "")
    return (f"{value:.0f}" if value == int(value) else f"{value:.3g}") + suffix


class Picture:
    """One dashboard, drawn."""

    def __init__(
        self,
        board: Mapping[str, Any],
        source: Source,
        fill: Callable[[str], str],
        times: tuple[float, float, float],
    ) -> None:
        self._board, self._source, self._fill = board, source, fill
        self._start, self._end, self._step = times
        self._height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
        self._size = (24 * COLUMN, (self._height + 2) * LINE)
        self.figure = Figure(figsize=self._size, dpi=100, facecolor="#f4f5f5")
        self._marks: list[tuple[float, str]] = []
        self.empty: list[str] = []
        """Titles of panels that had no data."""

    def draw(self) -> Figure:
        self.figure.text(
            0.008, 1 - 1.2 * LINE / self._size[1], self._board["title"], size=15, weight="bold"
        )
        for found in self._board["annotations"]["list"]:
            # A shorter window than Grafana's, so that marks close to each other stay apart.
            for series in self._range(found["expr"].replace("[1m]", "[$__rate_interval]")):
                self._marks += [(float(t), found["iconColor"]) for t, _ in series["values"][:1]]
                times = [float(t) for t, _ in series["values"]]
                self._marks += [
                    (late, found["iconColor"])
                    for early, late in pairwise(times)
                    if late - early > 1.5 * self._step
                ]
        for panel in self._board["panels"]:
            if panel["type"] == "row":
                self._heading(panel)
                continue
            drawing = getattr(self, "_" + panel["type"].replace("-", "_"))
            axes = self._axes(panel)
            if drawing(axes, panel) is False:
                self.empty.append(panel["title"])
                told = panel["fieldConfig"]["defaults"].get("noValue", "No data")
                axes.text(0.5, 0.5, told, ha="center", va="center", color="#888", size=8)
                axes.set_axis_off()
        return self.figure

    # The grid.

    def _box(self, at: Mapping[str, int]) -> tuple[float, float, float, float]:
        """Left, bottom, width, height in parts of the figure."""
        width, height = self._size
        top = (at["y"] + 2) * LINE
        return (
            (at["x"] * COLUMN + GAP / 2) / width,
            1 - (top + at["h"] * LINE - GAP / 2) / height,
            (at["w"] * COLUMN - GAP) / width,
            (at["h"] * LINE - GAP) / height,
        )

    def _heading(self, panel: Mapping[str, Any]) -> None:
        left, bottom, _, height = self._box(panel["gridPos"])
        self.figure.text(left, bottom + height / 3, panel["title"], size=10, weight="bold")

    def _axes(self, panel: Mapping[str, Any]) -> Axes:
        left, bottom, width, height = self._box(panel["gridPos"])
        self.figure.add_artist(
            Rectangle(
                (left, bottom), width, height, facecolor="white", edgecolor="#dcdcdc", zorder=-1
            )
        )
        total_width, total_height = self._size
        title = 0.26 / total_height
        self.figure.text(
            left + 0.08 / total_width, bottom + height - 0.19 / total_height, panel["title"], size=8
        )
        chart = panel["type"] in ("timeseries", "heatmap", "state-timeline")
        inner_left = (0.55 if chart else 0.1) / total_width
        inner_bottom = (0.3 if chart else 0.1) / total_height
        axes = self.figure.add_axes(
            (
                left + inner_left,
                bottom + inner_bottom,
                width - inner_left - 0.12 / total_width,
                height - inner_bottom - title - 0.06 / total_height,
            )
        )
        axes.tick_params(labelsize=6.5, length=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return axes

    # Data.

    def _now(self, panel: Mapping[str, Any]) -> list[tuple[str, float]]:
        found = []
        for query in panel["targets"]:
            for series in self._source.query(self._fill(query["expr"])):
                found.append((_legend(query, series["metric"]), float(series["value"][1])))
        return found

    def _range(self, expr: str) -> Series:
        return self._source.query_range(self._fill(expr), self._start, self._end, self._step)

    def _lines(self, panel: Mapping[str, Any]) -> list[tuple[str, list[float], list[float]]]:
        """Legend, times and values of each series; NaN where there is a gap."""
        grid = [
            self._start + place * self._step
            for place in range(int((self._end - self._start) / self._step) + 1)
        ]
        lines = []
        for query in panel["targets"]:
            for series in self._range(query["expr"]):
                values = {round(float(t)): float(v) for t, v in series["values"]}
                row = [values.get(round(t), math.nan) for t in grid]
                lines.append((_legend(query, series["metric"]), grid, row))
        return lines

    def _x(self, axes: Axes) -> None:
        axes.set_xlim(self._start, self._end)
        ticks = [self._start + part * (self._end - self._start) / 4 for part in range(1, 4)]
        axes.set_xticks(ticks, [time.strftime("%H:%M:%S", time.gmtime(tick)) for tick in ticks])
        for at, name in self._marks:
            axes.axvline(at, color=colour(name), linewidth=0.8, linestyle=":", zorder=5)

    # Kinds of panels; False where there is nothing to show.

    def _stat(self, axes: Axes, panel: Mapping[str, Any]) -> bool:
        found = self._now(panel)
        axes.set_axis_off()
        defaults = panel["fieldConfig"]["defaults"]
        mode = panel["options"]["textMode"]
        for place, (legend, value) in enumerate(found[:2]):
            if "decimals" in defaults and defaults["decimals"] == 0:
                value = round(value)
            text = legend if mode == "name" else shown(value, defaults["unit"])
            if mode == "value_and_name":
                text = f"{legend} {text}"
            tint = _threshold(defaults["thresholds"]["steps"], value)
            tint = _override(panel, legend) or tint
            height = 0.5 if len(found) == 1 else 0.72 - 0.46 * place
            size = 17 if len(found) == 1 and len(text) < 9 else 12
            axes.text(0.5, height, text, ha="center", va="center", size=size, color=colour(tint))
        return bool(found)

    def _timeseries(self, axes: Axes, panel: Mapping[str, Any]) -> bool:
        lines = self._lines(panel)
        if not lines:
            return False
        defaults = panel["fieldConfig"]["defaults"]
        stacked = defaults["custom"]["stacking"]["mode"] == "normal"
        tints = [
            colour(_override(panel, legend) or PALETTE[place % len(PALETTE)])
            for place, (legend, _, _) in enumerate(lines)
        ]
        if stacked:
            grid = lines[0][1]
            rows = [[0.0 if math.isnan(v) else v for v in row] for _, _, row in lines]
            labels = [legend for legend, _, _ in lines]
            axes.stackplot(grid, *rows, labels=labels, colors=tints, alpha=0.75, linewidth=0)
        else:
            for (legend, grid, row), tint in zip(lines, tints, strict=True):
                axes.plot(grid, row, label=legend, color=tint, linewidth=1.1)
            most = max((v for _, _, row in lines for v in row if math.isfinite(v)), default=1.0)
            if "min" in defaults:
                axes.set_ylim(defaults["min"], 1.12 * most or 1.0)
        if "scaleDistribution" in defaults["custom"]:
            axes.set_yscale("log")
        unit = defaults["unit"]
        if unit == "bytes":
            top = max(axes.get_ylim()[1], 1.0)
            axes.yaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2(top / 6))))
        axes.yaxis.set_major_formatter(lambda value, _: shown(value, unit))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.09),
            ncols=min(len(lines), 7),
            fontsize=6,
            frameon=False,
            handlelength=1,
            borderpad=0,
            columnspacing=0.9,
        )
        self._x(axes)
        return True

    def _state_timeline(self, axes: Axes, panel: Mapping[str, Any]) -> bool:
        lines = sorted(self._lines(panel))
        states = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
        seen: dict[str, Any] = {}
        for place, (_, grid, row) in enumerate(lines):
            for at, value in zip(grid, row, strict=True):
                state = states.get("" if math.isnan(value) else str(round(value)))
                if state is not None:
                    seen[state["text"]] = axes.broken_barh(
                        [(at, self._step)], (place - 0.4, 0.8), color=colour(state["color"])
                    )
        axes.set_yticks(range(len(lines)), [legend for legend, _, _ in lines])
        axes.set_ylim(len(lines) - 0.4, -0.6)
        if seen:
            axes.legend(
                seen.values(),
                seen.keys(),
                loc="upper center",
                bbox_to_anchor=(0.5, -0.09),
                ncols=len(seen),
                fontsize=6,
                frameon=False,
                handlelength=1,
            )
        self._x(axes)
        return bool(lines)

    def _heatmap(self, axes: Axes, panel: Mapping[str, Any]) -> bool:
        lines = self._lines(panel)
        if not lines:
            return False
        rows = {legend: row for legend, _, row in lines}
        if panel["targets"][0]["format"] == "heatmap":
            rows = _buckets(rows)
        grid = [*lines[0][1], lines[0][1][-1] + self._step]
        names = sorted(rows, key=_numeric)
        mesh = axes.pcolormesh(
            grid,
            range(len(names) + 1),
            [[value if value > 0 else math.nan for value in rows[name]] for name in names],
            cmap="Oranges",
            vmin=0,
        )
        axes.set_yticks([place + 0.5 for place in range(len(names))], names)
        bar = self.figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.04)
        bar.ax.tick_params(labelsize=6, length=2)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        bar.ax.yaxis.set_major_formatter(lambda value, _: shown(value, unit))
        self._x(axes)
        return True

    def _bargauge(self, axes: Axes, panel: Mapping[str, Any]) -> bool:
        # The first one is to stand at the top.
        found = sorted(self._now(panel), key=lambda pair: pair[1])
        defaults = panel["fieldConfig"]["defaults"]
        axes.set_axis_off()
        if not found:
            return False
        most = defaults.get("max") or max(value for _, value in found) or 1
        thick = 0.5 if len(found) < 7 else 0.3  # room for the words between them
        for place, (legend, value) in enumerate(found):
            tint = _override(panel, legend)
            tint = tint or _threshold(defaults["thresholds"]["steps"], value)
            axes.barh(place, most, color="#f0f0f0", height=thick)
            axes.barh(place, value, color=colour(tint), height=thick)
            over = place + thick / 2 + 0.05
            axes.text(0, over, legend, size=6.5, va="bottom")
            text = shown(value, defaults["unit"])
            axes.text(most, over, text, size=6.5, va="bottom", ha="right")
        axes.set_ylim(min(0, len(found) - 5) - 0.5, len(found) - 0.2)
        return True

    def _table(self, axes: Axes, panel: Mapping[str, Any]) -> bool:
        names = panel["transformations"][1]["options"]["renameByName"]
        units = {
            override["matcher"]["options"]: prop["value"]
            for override in panel["fieldConfig"]["overrides"]
            for prop in override["properties"]
            if prop["id"] == "unit"
        }
        rows: dict[tuple[str, ...], dict[str, str]] = {}
        answers = [
            (query, self._source.query(self._fill(query["expr"]))) for query in panel["targets"]
        ]
        sets = [set(series["metric"]) for _, found in answers for series in found]
        common = sorted(set.intersection(*sets)) if sets else []
        for query, found in answers:
            heading = names.get(f"Value #{query['refId']}")
            for series in found:
                metric = series["metric"]
                row = rows.setdefault(tuple(metric[label] for label in common), {})
                row |= {names[label]: value for label, value in metric.items()}
                if heading:
                    row[heading] = shown(float(series["value"][1]), units.get(heading, "short"))
        headings = [
            heading
            for labels in (True, False)
            for name, heading in names.items()
            if name.startswith("Value #") != labels
        ]
        axes.set_axis_off()
        if not rows:
            return False
        cells = [[row.get(heading, "") for heading in headings] for _, row in sorted(rows.items())]
        height = min(1.0, 0.12 * (len(cells) + 1))
        drawn = axes.table(
            cells,
            colLabels=headings,
            cellLoc="left",
            colLoc="left",
            bbox=(0, 1 - height, 1, height),
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(7.5)
        for (line, column), cell in drawn.get_celld().items():
            cell.set_edgecolor("#e5e5e5")
            if line == 0:
                cell.set_text_props(weight="bold")
            elif headings[column] == "State":
                tint = SERIES_COLOURS.get(cell.get_text().get_text(), "text")
                cell.set_text_props(color=colour(tint))
        return True


def _legend(query: Mapping[str, Any], metric: Mapping[str, str]) -> str:
    text = str(query["legendFormat"])
    if text == "__auto":
        return ", ".join(v for k, v in metric.items() if k != "__name__")
    for label, value in metric.items():
        text = text.replace("{{" + label + "}}", value)
    return text


def _override(panel: Mapping[str, Any], name: str) -> str | None:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            for prop in override["properties"]:
                if prop["id"] == "color":
                    return str(prop["value"]["fixedColor"])
    return None


def _threshold(steps: Sequence[Mapping[str, Any]], value: float) -> str:
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return str(reached[-1])


def _numeric(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.inf


def _buckets(rows: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """From cumulative buckets to each by itself, as Grafana does."""
    apart: dict[str, list[float]] = {}
    below: list[float] | None = None
    for name in sorted(rows, key=_numeric):
        row = rows[name]
        apart[name] = row if below is None else [a - b for a, b in zip(row, below, strict=True)]
        below = row
    return apart


def draw(
    source: Source,
    folder: Path,
    variables: Mapping[str, Mapping[str, str]],
    *,
    seconds: float,
    step: float,
) -> list[Path]:
    """Draws every dashboard into a folder.

    Args:
        variables: for each dashboard's uid the values of its variables.
        seconds: how far back the graphs go.
        step: between two points of a graph.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.time() // step * step
    paths = []
    for uid, board in boards().items():
        fill = partial(filled, variables=variables[uid])
        figure = Picture(board, source, fill, (end - seconds, end, step)).draw()
        paths.append(folder / f"{uid}.png")
        figure.savefig(paths[-1])
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the dashboards from a Prometheus's data.")
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--job", required=True, help="for the dashboard of one job")
    parser.add_argument("--seconds", type=float, default=900.0, help="how far back (default 900)")
    parser.add_argument("--step", type=float, default=5.0, help="between two points (default 5)")
    parser.add_argument("--rate", default="1m", help="the window of rates (default 1m)")
    options = parser.parse_args()
    chosen = {"job": options.job, "namespace": options.namespace, "worker": ".+"}
    times = {"__rate_interval": options.rate, "__range": f"{options.seconds:.0f}s"}
    variables = {uid: {**chosen, **times} for uid in boards()}
    variables["shardwise-fleet"]["namespace"] = ".+"
    client = Client(options.url)
    drawn = draw(client, options.folder, variables, seconds=options.seconds, step=options.step)
    print(*drawn, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
