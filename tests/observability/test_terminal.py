"""The pictures of what commands draw: a real terminal, frame by frame, in colours."""

from __future__ import annotations

import sys

import pytest
from terminal import _cells, frames, picture, show

SCRIPT = """
import sys, time
from shardwise.cli.terminal import Screen, paint_for

screen, paint = Screen(sys.stdout), paint_for(sys.stdout)
for step in range(int(sys.argv[1])):
    screen.draw([paint("digits", "bold"), f"{paint('━' * step, 'green')} step {step}"])
    time.sleep(0.02)
"""


def test_the_first_frame_that_matches_is_had_in_its_colours():
    frame = show([sys.executable, "-c", SCRIPT, "10000"], r"digits.*step 5\b", columns=40)
    head, bar = frame.replace("\r", "").split("\n")[:2]
    assert _cells(head)[0] == ("d", ("1",))
    assert _cells(bar)[0] == ("━", ("32",))
    assert "".join(letter for letter, _ in _cells(bar)) == "━━━━━ step 5"
    drawn = picture(frame, "shardwise watch digits")
    assert {text.get_text() for text in drawn.axes[0].texts} >= {"━", "5", "w"}


def test_a_command_that_ends_before_is_told_with_its_last_words():
    with pytest.raises(RuntimeError, match=r"(?s)before it showed 'step 99'.*step 2"):
        show([sys.executable, "-c", SCRIPT, "3"], "step 99")


def test_an_output_is_cut_into_frames():
    assert frames("\x1b[?25l\r\x1b[Ja\n\x1b[1A\r\x1b[Jb\n") == ["a\n\x1b[1A\r", "b\n"]
