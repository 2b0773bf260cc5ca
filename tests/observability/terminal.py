"""Pictures of what a command draws on a terminal.

    python tests/observability/terminal.py OUT.png --until REGEX [--size 100x24] -- COMMAND...

Runs the command on a terminal of its own until what it shows matches, then interrupts it and draws
that. For the pictures of `shardwise run` and `shardwise watch` in the docs.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Circle

REDRAW = "\x1b[J"
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_OTHER = re.compile(r"\x1b\[[?0-9;]*[A-Za-ln-z]|\r")
STOP_SECONDS = 20.0
BACKGROUND, TEXT = "#1e1e2e", "#cdd6f4"
COLOURS = {"31": "#f38ba8", "32": "#a6e3a1", "33": "#f9e2af", "34": "#89b4fa", "35": "#cba6f7"}
COLOURS |= {"36": "#94e2d5", "2": "#7f849c"}
WIDTH, HEIGHT, SIZE = 0.0953, 0.205, 11.4
"""Inches of a cell, and the font that fits it."""
MARGIN = 2.2
"""Cells around the text."""


def frames(output: str) -> list[str]:
    """What was shown between one redrawing and the next; the last one may be incomplete."""
    return output.split(REDRAW)[1:]


def show(
    command: Sequence[str],
    until: str,
    *,
    environment: Mapping[str, str] | None = None,
    columns: int = 100,
    lines: int = 24,
    seconds: float = 300.0,
) -> str:
    """The first whole frame of a command that matches a regular expression.

    Raises:
        TimeoutError, RuntimeError: no frame matched in time, or before the command's end.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**(os.environ if environment is None else environment), "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    output, deadline = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                data = b""
            if not data:
                shown = _OTHER.sub("", _STYLE.sub("", output.decode(errors="replace")))
                raise RuntimeError(
                    f"{command[0]} ended before it showed {until!r}: {shown[-2000:]}"
                )
            output += data
            whole = frames(output.decode(errors="replace"))[:-1]
            if whole and re.search(until, _STYLE.sub("", whole[-1]), re.DOTALL):
                return whole[-1]
        raise TimeoutError(f"{command[0]} has not shown {until!r} within {seconds:.0f} s")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(ours)


def picture(frame: str, title: str) -> Figure:
    """A frame as a window of a terminal."""
    rows = [_cells(line) for line in _OTHER.sub("", frame).rstrip("\n").split("\n")]
    across = max(len(title) + 10, *(len(row) for row in rows)) + 2 * MARGIN
    down = len(rows) + 2 + MARGIN
    figure = Figure(figsize=(across * WIDTH, down * HEIGHT), dpi=150, facecolor=BACKGROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, across)
    axes.set_ylim(down, 0)
    axes.set_axis_off()
    for place, tint in enumerate(("#f38ba8", "#f9e2af", "#a6e3a1")):
        # Round in inches: a cell is higher than wide.
        figure.add_artist(
            Circle(
                ((MARGIN + 0.6 + 2.6 * place) * WIDTH * 150, (down - 1.2) * HEIGHT * 150),
                0.35 * HEIGHT * 150,
                color=tint,
                transform=None,
            )
        )
    font = {"family": "DejaVu Sans Mono", "size": SIZE, "va": "center", "ha": "center"}
    for place, letter in enumerate(title):
        axes.text(MARGIN + 9.5 + place, 1.2, letter, color=COLOURS["2"], **font)
    for row, cells in enumerate(rows):
        for column, (letter, codes) in enumerate(cells):
            if not letter.strip():
                continue
            tints = [COLOURS[code] for code in codes if code in COLOURS]
            axes.text(
                MARGIN + column + 0.5,
                2.9 + row,
                letter,
                color=tints[-1] if tints else TEXT,
                weight="bold" if "1" in codes else "normal",
                **font,
            )
    return figure


def _cells(line: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each letter with the codes of its style."""
    cells: list[tuple[str, tuple[str, ...]]] = []
    codes: tuple[str, ...] = ()
    place = 0
    while place < len(line):
        found = _STYLE.match(line, place)
        if found:
            codes = tuple(code for code in found[1].split(";") if code not in ("", "0"))
            place = found.end()
        else:
            cells.append((line[place], codes))
            place += 1
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--until", required=True, help="a regular expression")
    parser.add_argument("--size", default="100x24", help="columns x lines (default 100x24)")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--title", help="instead of the command")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    columns, _, lines = options.size.partition("x")
    command = options.command
    frame = show(
        command,
        options.until,
        columns=int(columns),
        lines=int(lines),
        seconds=options.seconds,
    )
    title = options.title or " ".join([Path(command[0]).name, *command[1:]])
    picture(frame, title).savefig(options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
