"""What the control thread tells of the training thread."""

from __future__ import annotations

from shardwise.worker.activity import ActivityLog


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_age_counts_from_the_last_beat_and_usual_is_the_longest_computation() -> None:
    clock = Clock()
    log = ActivityLog(clock)
    for seconds in (0.1, 0.7, 0.2):
        log.beat("computing")
        clock.now += seconds
    log.beat("exchanging")
    clock.now += 3.0
    activity, age, usual = log.sight()
    assert activity == "exchanging"
    assert abs(age - 3.0) < 1e-9
    assert abs(usual - 0.7) < 1e-9


def test_an_exchange_is_overdue_beyond_the_floor_and_beyond_what_is_usual() -> None:
    clock = Clock()
    log = ActivityLog(clock)
    for _ in range(5):  # exchanges that usually take 0.4 s
        log.beat("exchanging")
        clock.now += 0.4
        log.beat("computing")
        clock.now += 0.01
    log.beat("exchanging")
    clock.now += 1.1
    assert log.overdue(0.15) is None, "less than three times the usual wait"
    clock.now += 0.2
    waited = log.overdue(0.15)
    assert waited is not None
    assert abs(waited - 1.3) < 1e-9


def test_computing_is_never_overdue() -> None:
    clock = Clock()
    log = ActivityLog(clock)
    log.beat("computing")
    clock.now += 1000.0
    assert log.overdue(0.15) is None


def test_a_broken_exchange_is_not_taken_for_a_usual_one() -> None:
    clock = Clock()
    log = ActivityLog(clock)
    log.beat("exchanging")
    clock.now += 10.0
    log.forget_wait()
    log.beat("exchanging")
    clock.now += 0.2
    assert log.overdue(0.15) is not None
