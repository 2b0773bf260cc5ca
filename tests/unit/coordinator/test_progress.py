"""Rate and remaining time: told from a few reports, unmoved by a pause or a late report."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardwise.coordinator.progress import ProgressTracker
from shardwise.coordinator.protocol import StepReport


def at(step: int, **changes: Any) -> StepReport:
    values: dict[str, Any] = {
        "generation": 1,
        "step": step,
        "total_steps": 1000,
        "epoch": 0,
        "loss": 1.0,
        "samples_per_second": 640.0,
        "metrics": {},
        "seconds": {},
    }
    return StepReport(**{**values, **changes})


def test_the_first_report_tells_no_remaining_time() -> None:
    progress = ProgressTracker().add(at(10), now=5.0)
    assert progress.eta_seconds is None
    assert progress.samples_per_second == 640.0
    assert progress.at == 5.0


def test_a_pause_and_the_burst_after_it_change_nothing() -> None:
    tracker = ProgressTracker()
    for count, now in enumerate([0.0, 5.0, 10.0, 15.0, 80.0, 80.1, 85.1, 90.1]):
        progress = tracker.add(at(50 * count), now)
    assert progress.eta_seconds == pytest.approx((1000 - 350) / 10)


def test_repeated_reports_and_steps_back_are_no_rates() -> None:
    tracker = ProgressTracker()
    for step, now in [(0, 0.0), (0, 5.0), (50, 5.0), (50, 10.0), (20, 11.0), (70, 16.0)]:
        progress = tracker.add(at(step), now)
    assert progress.step == 70
    assert progress.eta_seconds == pytest.approx(930 / 10)


def test_after_a_regroup_the_new_rate_soon_counts() -> None:
    tracker = ProgressTracker()
    for count in range(9):
        tracker.add(at(10 * count), 1.0 * count)
    tracker.regrouped()
    tracker.add(at(90), 100.0)
    progress = tracker.add(at(92), 101.0)
    assert progress.eta_seconds == pytest.approx(908 / 6)
    assert tracker.add(at(94), 102.0).eta_seconds == pytest.approx(906 / 2)


def test_after_a_pause_the_gap_is_left_out() -> None:
    tracker = ProgressTracker()
    tracker.add(at(0), 0.0)
    tracker.add(at(100), 10.0)
    tracker.pause()
    assert tracker.latest is not None
    assert tracker.latest.eta_seconds is None
    tracker.add(at(101), 100.0)
    assert tracker.add(at(201), 110.0).eta_seconds == pytest.approx(79.9)


def test_the_end_is_zero_seconds_away() -> None:
    assert ProgressTracker().add(at(1000), 0.0).eta_seconds == 0.0


@example([(0, 0.0, 1e308, False), (0, 0.0, 1.5e308, False)])
@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.floats(0, 1e6), st.floats(), st.booleans()), max_size=30
    )
)
def test_any_reports_give_sane_figures(reports: list[tuple[int, float, float, bool]]) -> None:
    tracker = ProgressTracker()
    now = 0.0
    for step, later, rate, pause in reports:
        now += later
        progress = tracker.add(at(step, samples_per_second=rate), now)
        assert math.isfinite(progress.samples_per_second)
        assert progress.samples_per_second >= 0
        assert progress.eta_seconds is None or progress.eta_seconds >= 0
        if pause:
            tracker.pause()
