"""From a task's progress reports to a rate and a remaining time that do not jump about.

A pause (an evaluation, a regroup, a slow disk) makes one interval long, a delayed report makes
the next one short; the median of the last few intervals' rates is moved by neither. Pure: times
are given, none is read.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from statistics import median_high, median_low

from shardwise.coordinator.protocol import StepReport
from shardwise.coordinator.report import Progress

WINDOW = 9
"""Intervals that the median is taken over."""


class ProgressTracker:
    """The progress of one task."""

    def __init__(self) -> None:
        self._steps_per_second: deque[float] = deque(maxlen=WINDOW)
        self._samples_per_second: deque[float] = deque(maxlen=WINDOW)
        self._last: tuple[float, int] | None = None
        self.latest: Progress | None = None

    def add(self, report: StepReport, now: float) -> Progress:
        """Take in a report that came at `now`; times must not decrease."""
        if self._last is not None:
            since, step = self._last
            if now > since and report.step > step:
                self._steps_per_second.append((report.step - step) / (now - since))
        # Two reports in one instant, or a repeated step: measure from the first of them.
        if self._last is None or report.step != self._last[1]:
            self._last = (now, report.step)
        if math.isfinite(report.samples_per_second) and report.samples_per_second > 0:
            self._samples_per_second.append(report.samples_per_second)
        self.latest = Progress(
            step=report.step,
            total_steps=report.total_steps,
            epoch=report.epoch,
            loss=report.loss,
            samples_per_second=_median(self._samples_per_second) or 0.0,
            eta_seconds=self._eta(report),
            at=now,
            metrics=report.metrics,
            stage=report.stage,
        )
        return self.latest

    def regrouped(self) -> None:
        """The group has changed: its rates soon count for more than those before.

        The interval with the change in it is kept out of them.
        """
        self._last = None
        for rates in (self._steps_per_second, self._samples_per_second):
            for _ in range(len(rates) - 1):
                rates.popleft()

    def pause(self) -> None:
        """Nobody trains: the next interval is left out, and no remaining time is known."""
        self._last = None
        if self.latest is not None:
            self.latest = replace(self.latest, eta_seconds=None)

    def _eta(self, report: StepReport) -> float | None:
        left = max(0, report.total_steps - report.step)
        rate = _median(self._steps_per_second)
        if left == 0:
            return 0.0
        return left / rate if rate else None


def _median(rates: deque[float]) -> float | None:
    # Halved before they are added: the sum of two large ones would be infinite.
    return median_low(rates) / 2 + median_high(rates) / 2 if rates else None
