"""Writes the dashboards into the chart, and docs/metrics.md.

python -m shardwise_operator.dashboards [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shardwise_operator.dashboards import control_plane, fleet, job
from shardwise_operator.dashboards.reference import reference

COMMAND = "python -m shardwise_operator.dashboards"


def files() -> dict[str, str]:
    """What is generated, by its path in the repository."""
    boards = (fleet.board(), job.board(), control_plane.board())
    return {
        **{f"charts/shardwise/dashboards/{board.uid}.json": board.text() for board in boards},
        "docs/metrics.md": reference(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description="Generate dashboards and docs.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if stale")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: .)")
    options = parser.parse_args(arguments)
    stale = []
    for name, text in files().items():
        path = options.root / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale and options.check:
        print(f"stale (run `{COMMAND}`):", *stale, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
