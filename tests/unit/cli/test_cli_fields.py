"""Reading of objects and writing of times, sizes, tables, colours."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import NOW

from shardwise.cli.terminal import Screen, crop, paint_for
from shardwise.cli.view import fields
from shardwise.cli.view.style import Paint
from shardwise.cli.view.table import table, wrapped


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0s"),
        (59.4, "59s"),
        (130, "2m10s"),
        (3900, "1h05m"),
        (273_600, "3d04h"),
        (-5, "0s"),
        (float("inf"), "?"),
    ],
)
def test_durations(seconds, words):
    assert fields.duration(seconds) == words


def test_short_durations_keep_tenths():
    assert fields.short_duration(0.41) == "410ms"
    assert fields.short_duration(12.3) == "12s"


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (1023, "1,023 B"), (12_900_000, "12.3 MiB"), (2**60, "1,048,576.0 TiB")],
)
def test_sizes(count, words):
    assert fields.size(count) == words


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=8,
)


@given(json_like, st.sampled_from(["a", "a.b", "b.a.b", "a.a"]))
def test_any_object_can_be_read(found, path):
    fields.text(found, path)
    fields.number(found, path)
    fields.items(found, path)
    fields.age(found, path, NOW)


def test_times_with_and_without_parts_of_a_second():
    at = datetime(2026, 1, 1, 0, 59, 30, tzinfo=UTC)
    assert fields.time("2026-01-01T00:59:30Z") == at
    assert fields.time("2026-01-01T00:59:30.000000Z") == at
    assert fields.time("soon") is None
    assert fields.age({"at": "2026-01-01T00:59:30Z"}, "at", NOW) == "30s"


def test_a_table_is_aligned_before_it_is_painted():
    paint = Paint(True)
    lines = table(
        ("A", "LONG"),
        [("wide one", "x"), ("b", "")],
        lambda heading, cell: paint(cell, "red") if heading == "A" else cell,
    )
    assert lines == ["A          LONG", "\x1b[31mwide one\x1b[0m   x", "\x1b[31mb       \x1b[0m"]


def test_wrapping_keeps_lines_apart_and_words_whole():
    assert wrapped("one\ntwo three", 20) == ["  one", "  two three"]
    assert wrapped("spec.a.b.c.d.e.f.g.h.i.j", 20, "") == ["spec.a.b.c.d.e.f.g.h", ".i.j"]
    assert wrapped("", 20) == [""]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "enabled"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_unless_told_otherwise(stream, environment, enabled, monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert paint_for(stream).enabled is enabled


@given(st.lists(st.sampled_from(["a", "é", "\x1b[31m", "\x1b[0m", "■"])), st.integers(1, 12))
def test_cropping_counts_what_is_seen(parts, columns):
    cut = crop("".join(parts), columns)
    assert len(re.sub(r"\x1b\[[0-9;]*m", "", cut)) <= columns


def test_a_screen_draws_over_what_it_drew_and_leaves_the_cursor_as_it_was(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setenv("LINES", "3")
    stream = Terminal()
    screen = Screen(stream)
    screen.draw(["one", "two", "three", "four"])
    screen.draw(["a line that is too long"])
    screen.close()
    first, second = stream.getvalue().split("\x1b[2A")
    assert first == "\x1b[?25l\r\x1b[Jone\ntwo\n"
    assert second == "\r\x1b[Ja line th…\n\x1b[?25h"
