"""Tasks for people: the table, the rows of the live picture, the words at the end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shardwise.cli.view.bars import bar
from shardwise.cli.view.fields import plural, short_duration
from shardwise.cli.view.rows import COUNTS, Row, Tasks, ranked
from shardwise.cli.view.style import Paint
from shardwise.cli.view.table import indented, table

BEST, ON_FRONT = "★", "◆"
TOP = 5
RUNNING, FRONT, FAILED = 8, 8, 5
SHOWN_PARAMETERS, SHOWN_METRICS = 6, 4
"""Of each row in a line; a table has them all."""
HASH = 12
WORD = 24
COLOURS = {
    "succeeded": "green",
    "running": "green",
    "pending": "cyan",
    "stopped": "blue",
    "failed": "red",
}


def counts_words(tasks: Tasks, paint: Paint, *, ended: bool = False) -> str:
    """37/100 tasks · 4 running · 30 succeeded · 5 stopped · 2 failed"""
    told = [f"{tasks.ended}/{tasks.total} tasks"]
    told += [
        paint(f"{tasks.counts[key]} {key}", COLOURS[key])
        for key in COUNTS
        if tasks.counts.get(key) and not (ended and key in ("pending", "running"))
    ]
    return " · ".join(told)


def figures(row: Row, first: Iterable[str] = ()) -> str:
    """accuracy 0.9806, loss 0.0712; the named ones alone where there are any."""
    named = [key for key in first if key in row.metrics] or list(row.metrics)[:SHOWN_METRICS]
    return ", ".join(f"{key} {figure(row.metrics[key])}" for key in named)


def figure(value: float) -> str:
    """0.9806, 52,704."""
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def parameters(row: Row) -> str:
    """hidden=128 learning_rate=0.2"""
    shown = list(row.parameters.items())
    told = " ".join(f"{key}={cut(value)}" for key, value in shown[:SHOWN_PARAMETERS])
    return told + (" …" if len(shown) > SHOWN_PARAMETERS else "")


def cut(value: str) -> str:
    """A number with as many places as tell tasks apart; a long text cut."""
    try:
        short = f"{float(value):.4g}"
    except ValueError:
        return value if len(value) <= WORD else f"{value[:WORD]}…"
    return value if len(value) <= len(short) else short


def best_words(tasks: Tasks) -> str:
    """task-7: accuracy 0.9806 · hidden=128 learning_rate=0.2"""
    if tasks.best is None:
        return ""
    told = figures(tasks.best, [each.metric for each in tasks.objectives])
    head = f"{tasks.best.name}: {told}" if told else tasks.best.name
    return " · ".join(filter(None, [head, parameters(tasks.best)]))


def lines_of(
    tasks: Tasks, rows: Sequence[Row], paint: Paint, *, wide: bool = False, marks: bool = True
) -> list[str]:
    """The table of these rows: with the best and those on the front marked."""
    aims = [each.metric for each in tasks.objectives]
    metrics = tasks.metrics if wide or not aims else aims
    failed = any(row.reason for row in rows)
    headings = [
        *([""] if marks else []),
        "NAME",
        "STATE",
        *(key.upper() for key in tasks.parameters),
        *(key.upper() for key in metrics),
        *("STEPS", "TIME"),
        *(("WORKERS", "WEIGHTS") if wide else ()),
        *(("REASON",) if failed else ()),
        *(("MESSAGE",) if failed and wide else ()),
    ]
    cells = [
        [
            *([_mark(tasks, row)] if marks else []),
            row.name,
            row.state,
            *(cut(row.parameters.get(key, "")) for key in tasks.parameters),
            *(figure(row.metrics[key]) if key in row.metrics else "" for key in metrics),
            _steps(row),
            "" if row.seconds is None else short_duration(row.seconds),
            *((row.workers, row.weights[:HASH]) if wide else ()),
            *((row.reason,) if failed else ()),
            *((" ".join(row.message.split()),) if failed and wide else ()),
        ]
        for row in rows
    ]

    def style(heading: str, cell: str) -> str:
        bare = cell.rstrip()
        if heading == "STATE":
            return paint(bare, COLOURS.get(bare.lower(), "")) + cell[len(bare) :]
        return paint(cell, "yellow") if heading == "" else cell

    return table(headings, cells, style)


def _mark(tasks: Tasks, row: Row) -> str:
    if tasks.best is not None and row.name == tasks.best.name:
        return BEST
    return ON_FRONT if row.name in tasks.pareto else ""


def _steps(row: Row) -> str:
    if row.state == "Running" and row.total:
        return f"{row.step:,.0f}/{row.total:,.0f}"
    return f"{row.step:,.0f}" if row.step else ""


def summary(tasks: Tasks, paint: Paint) -> list[str]:
    """The head over a table: counts, and what the marks are."""
    lines = [counts_words(tasks, paint)]
    if tasks.best is not None:
        lines.append(f"{paint(BEST, 'yellow')} best {best_words(tasks)}")
    if tasks.pareto:
        lines.append(
            f"{paint(ON_FRONT, 'yellow')} {plural(len(tasks.pareto), 'task')} that no other is "
            "better than in every objective"
        )
    return lines


def picture(tasks: Tasks, width: int, paint: Paint) -> list[str]:
    """What the live picture of a job has of its tasks, as (label, text) lines do."""
    lines = []
    if tasks.best is not None:
        lines.append(f"{paint(BEST, 'yellow')} {best_words(tasks)}")
    running = [row for row in tasks.rows if row.state == "Running"]
    names = max((len(row.name) for row in running[:RUNNING]), default=0)
    for row in running[:RUNNING]:
        done, rest = bar(row.step / row.total if row.total else 0.0, 16)
        workers = f"{row.workers} workers" if row.workers not in ("", "0", "1") else ""
        told = "  ".join(filter(None, [_steps(row) or "starts", workers, parameters(row)]))
        lines.append(f"{row.name.ljust(names)} {paint(done, 'green')}{paint(rest, 'dim')} {told}")
    if len(running) > RUNNING or tasks.counts.get("running", 0) > len(running):
        shown = min(len(running), RUNNING)
        lines.append(f"… and {max(tasks.counts.get('running', 0), len(running)) - shown} more")
    lines += [f"{paint('✗', 'red')} {why(row)}" for row in failures(tasks)[:2]]
    return lines


def failures(tasks: Tasks) -> list[Row]:
    return [row for row in tasks.rows if row.state == "Failed"]


def why(row: Row) -> str:
    """task-3: UserCodeFailed: ValueError: ..."""
    return ": ".join(filter(None, [row.name, row.reason, " ".join(row.message.split())]))


def fraction(tasks: Tasks) -> float:
    """The part of the tasks that is done; those that run count by their steps."""
    under_way = sum(
        min(1.0, row.step / row.total) for row in tasks.rows if row.state == "Running" and row.total
    )
    return min(1.0, (tasks.ended + under_way) / tasks.total) if tasks.total else 0.0


def described(tasks: Tasks, paint: Paint) -> list[str]:
    """The section of `describe`: the best, the front, those that run, those that failed."""
    shown: Mapping[str, list[Row]] = {
        "Best": [tasks.best] if tasks.best is not None else [],
        "Pareto": [row for row in tasks.rows if row.name in tasks.pareto][:FRONT],
        "Running": [row for row in tasks.rows if row.state == "Running"][:RUNNING],
        "Failed": failures(tasks)[:FAILED],
    }
    lines = []
    for title, rows in shown.items():
        if rows:
            many = {
                "Pareto": len(tasks.pareto),
                "Running": tasks.counts.get("running", 0),
                "Failed": tasks.counts.get("failed", 0),
            }.get(title, 1)
            more = f" ({len(rows)} of {many})" if many > len(rows) else ""
            lines.append(f"{title}{more}:")
            lines += indented(lines_of(tasks, rows, paint, wide=title == "Failed", marks=False))
    return lines


def ended_lines(tasks: Tasks, paint: Paint) -> list[str]:
    """The end of a run: the best task, and a short table of the first ones."""
    lines = []
    if tasks.best is not None:
        row = tasks.best
        told = ", ".join(f"{key} {figure(each)}" for key, each in row.metrics.items())
        own = ", ".join(f"{key} {each}" for key, each in row.parameters.items())
        lines.append(f"best {row.name}: {'; '.join(filter(None, [told, own]))}")
        if row.weights:
            lines.append(f"weightsSha256 {row.weights}")
    top = [row for row in ranked(tasks) if row.state == "Succeeded"][:TOP]
    if len(top) > 1 or (top and tasks.best is None):
        lines += ["", *lines_of(tasks, top, paint), ""]
    lines += [f"{paint('failed', 'red')} {why(row)}" for row in failures(tasks)[:FAILED]]
    if len(failures(tasks)) > FAILED:
        lines.append(f"… and {len(failures(tasks)) - FAILED} more failed")
    return lines


def news(before: Tasks | None, now: Tasks) -> list[str]:
    """What has come since, a line each: tasks that ended, and a new best one."""
    seen = {row.name: row.state for row in before.rows} if before else {}
    aims = [each.metric for each in now.objectives]
    ended = [
        row
        for row in now.rows
        if row.state in ("Succeeded", "Failed", "Stopped")
        and before is not None
        and seen.get(row.name) != row.state
    ]
    lines = []
    for row in sorted(ended, key=lambda row: row.ended):
        told = row.reason if row.state == "Failed" else figures(row, aims)
        lines.append(" · ".join(filter(None, [f"{row.name} {row.state}", told, parameters(row)])))
    was = before.best.name if before and before.best else ""
    if now.best is not None and now.best.name != was:
        lines.append(f"best so far {best_words(now)}")
    return lines
