"""The terminal: whether to colour, how wide it is, and drawing in place."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from shardwise.cli.view.style import Paint
from shardwise.cli.view.visible import visible

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
HIDE_CURSOR, SHOW_CURSOR, TO_THE_END = "\x1b[?25l", "\x1b[?25h", "\x1b[J"


def paint_for(stream: TextIO) -> Paint:
    """Colours where the stream is a terminal; NO_COLOR turns them off, FORCE_COLOR on."""
    if os.environ.get("NO_COLOR"):
        return Paint(False)
    if os.environ.get("FORCE_COLOR"):
        return Paint(True)
    return Paint(stream.isatty() and os.environ.get("TERM") != "dumb")


def width() -> int:
    """Columns of the terminal, or COLUMNS; 100 where there is neither."""
    return shutil.get_terminal_size((100, 40)).columns


def live(stream: TextIO) -> bool:
    """Whether lines already written can be written anew."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def show(lines: Sequence[str]) -> None:
    """Lines on standard output."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def crop(line: str, columns: int) -> str:
    """The line cut to so many columns; colours stay, and end with it."""
    if len(_ANSI.sub("", line)) <= columns:
        return line
    kept, shown, place = [], 0, 0
    while shown < columns - 1:
        found = _ANSI.match(line, place)
        if found:
            kept.append(found.group())
            place = found.end()
        else:
            kept.append(line[place])
            place, shown = place + 1, shown + 1
    return "".join(kept) + ("\x1b[0m" if "\x1b" in line else "") + "…"


class Screen:
    """Draws blocks of lines over one another; the last one stays."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO = getattr(stream, "unguarded", stream)
        self._styles = paint_for(self._stream).enabled
        self._drawn = 0

    def draw(self, lines: Sequence[str]) -> None:
        size = shutil.get_terminal_size((100, 40))
        shown = [self._shown(line) for line in lines[: max(1, size.lines - 1)]]
        lines = [crop(line, size.columns) for line in shown]
        up = f"\x1b[{self._drawn}A" if self._drawn else HIDE_CURSOR
        # One write: a terminal shows no half-drawn block.
        self._stream.write(f"{up}\r{TO_THE_END}" + "".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def _shown(self, line: str) -> str:
        from shardwise.cli.guard import encodable

        # A line of a block is one line, whatever a job's text has in it.
        return encodable(
            visible(line, styles=self._styles).replace("\n", "\\n").replace("\t", " "),
            self._stream,
        )

    def close(self) -> None:
        self._stream.write(SHOW_CURSOR)
        self._stream.flush()
