"""The program's own output streams: nothing of a job's acts on the terminal, and no character that
the terminal does not know ends a command.

Installed around every command, so that no command has to think of it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

from shardwise.cli.terminal import paint_for
from shardwise.cli.view.visible import visible

_PLAIN: Final = str.maketrans(
    {
        "…": "...",
        "→": "->",
        "←": "<-",
        "·": "-",
        "–": "-",
        "—": "-",
        "≤": "<=",
        "≥": ">=",
        "✓": "+",
        "✗": "x",
        "●": "*",
        "○": "o",
        "×": "x",
        "↑": "^",
        "↓": "v",
        "∞": "inf",
        **dict.fromkeys("─━═╌┄┈", "-"),
        **dict.fromkeys("│┃║┆┊╎▏▎▕", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰╱╲", "+"),
        **{chr(code): "#" for code in range(0x2581, 0x258F)},
        **{chr(code): "#" for code in range(0x2590, 0x25A0)},
        **{chr(code): "*" if code > 0x2800 else " " for code in range(0x2800, 0x2900)},
    }
)
"""What pictures, tables and bars are drawn with, in ASCII of the same width where it matters."""


class Guard:
    """A text stream that shows instead of doing.

    Attributes:
        unguarded: the stream beneath, for what draws on the terminal itself.
    """

    encoding = "utf-8"
    """To writers: any text is taken."""
    errors = "strict"

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream
        self._styles = paint_for(stream).enabled

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"a text is written here, not {type(text).__name__}")
        self.unguarded.write(encodable(visible(text, styles=self._styles), self.unguarded))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self.unguarded.flush()

    def isatty(self) -> bool:
        return self.unguarded.isatty()

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # Bytes would go past all this.
            raise AttributeError(name)
        return getattr(self.unguarded, name)


def encodable(text: str, stream: TextIO) -> str:
    """The text as the stream can take it: in ASCII what it has no characters for."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except (UnicodeEncodeError, LookupError):
        plain = text.translate(_PLAIN)
    try:
        return plain.encode(encoding, "replace").decode(encoding)
    except (UnicodeError, LookupError):
        return plain.encode("ascii", "replace").decode("ascii")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Standard output and error, guarded while inside."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Guard(out), Guard(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
