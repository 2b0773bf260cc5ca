"""Characters that act on a terminal instead of being shown, made visible. Pure.

A job's names, messages and logs come from whoever wrote its code: an escape sequence in them could
clear the screen, fill the clipboard or hide a line, and a change of direction could reorder one.
"""

from __future__ import annotations

import re
from typing import Any

# C0 but tab and newline, DEL, C1, line separators, and all that turns the direction of a text.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)
_STYLE = re.compile(r"\x1b\[(?:0|(?:[12]|3[1-6])(?:;(?:[12]|3[1-6]))*)m")
"""What `style.Paint` writes: none of it moves, hides or erases anything."""


def visible(text: str, *, styles: bool = False) -> str:
    """The text with `\\x1b` and the like in the place of characters that act.

    Args:
        styles: leave the colours that `Paint` writes.
    """
    if not styles:
        return _ACTING.sub(_shown, text)
    made, end = [], 0
    for found in _STYLE.finditer(text):
        made += [_ACTING.sub(_shown, text[end : found.start()]), found.group()]
        end = found.end()
    return "".join([*made, _ACTING.sub(_shown, text[end:])])


def visible_all(value: Any) -> Any:
    """An object with all its texts made visible, keys too."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible_all(key): visible_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [visible_all(item) for item in value]
    return value


def _shown(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
