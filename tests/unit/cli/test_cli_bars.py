"""Bars, sparklines and curves: their sizes hold for any numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwise.cli.view.bars import NOT_A_NUMBER, bar, curve, spark

any_float = st.floats(allow_nan=True, allow_infinity=True)


@given(any_float, st.integers(0, 200))
def test_a_bar_has_its_width_and_never_shows_more_than_is_done(fraction, width):
    done, rest = bar(fraction, width)
    assert len(done + rest) == width
    shown = done.count("━") + 0.5 * done.count("╸")
    wanted = min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0
    assert shown <= wanted * width + 1e-6
    assert shown >= wanted * width - 0.5 - 1e-6


@given(st.lists(any_float, max_size=300), st.integers(0, 80))
def test_a_sparkline_fits_whatever_the_values(values, width):
    line = spark(values, width)
    assert len(line) == min(len(values), width)
    assert set(line) <= set("▁▂▃▄▅▆▇█" + NOT_A_NUMBER)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40, unique=True))
def test_a_sparkline_is_lowest_at_the_least_and_highest_at_the_most(values):
    line = spark(values, len(values))
    assert line[values.index(min(values))] == "▁"
    assert len(values) == 1 or line[values.index(max(values))] == "█"


def test_a_sparkline_of_one_value_over_and_over_is_flat_and_nan_shows():
    assert spark([3.0, 3.0, 3.0], 8) == "▁▁▁"
    assert spark([1.0, math.nan, 2.0], 8) == "▁×█"
    assert spark([math.nan], 8) == "×"


@given(
    st.lists(st.lists(st.tuples(any_float, any_float), max_size=20), max_size=4),
    st.integers(1, 40),
    st.integers(1, 10),
)
def test_a_curve_fills_its_frame_whatever_the_points(courses, width, height):
    rows = curve(courses, width, height)
    assert [len(row) for row in rows] == [width] * height
    assert {n for row in rows for _, n in row} <= set(range(-1, len(courses)))


def test_a_falling_curve_falls():
    rows = ["".join(sign for sign, _ in row) for row in curve([[(0, 2), (1, 1), (2, 0)]], 4, 2)]
    assert rows == ["⠑⠤⡀ ", "  ⠈⢆"]


@pytest.mark.parametrize("fraction", [1.0, 0.0])
def test_ends_of_a_bar(fraction):
    assert bar(fraction, 4) == (("━━━━", "") if fraction else ("", "────"))
