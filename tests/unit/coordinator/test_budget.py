"""What a worker may say, what waits, and what is a flood."""

from __future__ import annotations

import pytest

from shardwise.coordinator.budget import (
    FLOOD_SECONDS,
    HELLO_MESSAGES,
    JOB_MESSAGES,
    WORKER_BYTES,
    WORKER_MESSAGES,
    Budget,
    JobBudget,
    Meter,
)

RATE, BURST = WORKER_MESSAGES


def spoken(budget: Budget, seconds: float, rate: float, size: int = 100, now: float = 0.0) -> float:
    """A worker says so much a second, but never before it is heard; how often it was heard."""
    heard, end = 0, now + seconds
    while now < end:
        heard += 1
        now += max(1 / rate, budget.charge(size, now))
    return heard / seconds


def test_a_meter_lets_a_burst_pass_and_then_its_rate() -> None:
    meter = Meter(rate=10, burst=5)
    assert [meter.charge(1, 0.0) for _ in range(5)] == [0.0] * 5
    assert meter.charge(1, 0.0) == pytest.approx(0.1)
    assert meter.charge(0, 0.2) == 0.0
    assert meter.charge(5, 100.0) == 0.0


def test_a_worker_of_ours_never_waits() -> None:
    budget = JobBudget().of("w")
    now = 0.0
    for _ in range(36_000):
        budget.ask()
        assert budget.charge(200, now) == 0  # a pulse
        assert budget.charge(2000, now) == 0  # a report
        now += 0.1
    assert not budget.floods(now)


def test_a_flood_is_slowed_to_the_rate() -> None:
    budget = JobBudget().of("w")
    heard = spoken(budget, 100.0, rate=100_000)
    assert RATE <= heard <= RATE + BURST / 100 + 1
    assert budget.floods(100.0)
    assert "more than 100 messages or 256 KiB a second" in budget.told(100.0)


def test_large_messages_are_slowed_by_their_bytes() -> None:
    budget = JobBudget().of("w")
    heard = spoken(budget, 100.0, rate=1000, size=500_000)
    assert heard * 500_000 <= WORKER_BYTES[0] + WORKER_BYTES[1] / 100 + 500_000


def test_a_burst_is_no_flood() -> None:
    budget = JobBudget().of("w")
    spoken(budget, FLOOD_SECONDS - 1, rate=1000)
    assert budget.over_since is not None
    budget.charge(1, FLOOD_SECONDS + 2)
    assert budget.over_since is not None
    budget.charge(1, FLOOD_SECONDS + 20)
    assert budget.over_since is None
    assert not budget.floods(FLOOD_SECONDS + 20)


def test_answers_that_are_due_cost_nothing_but_no_more_than_asked_for() -> None:
    budget = JobBudget().of("w")
    for _ in range(1000):
        budget.ask()
        budget.charge(0, 0.0)
    assert budget.messages.charge(0, 0.0) == 0
    assert budget.messages.clear_at <= 0
    for _ in range(100):
        budget.ask()
    assert budget.asked < 100


def test_many_workers_of_a_job_share_what_it_has() -> None:
    job = JobBudget()
    job.sized(64)
    workers = [job.of(f"w{i}") for i in range(64)]
    free = [0.0] * 64
    heard, now = 0, 0.0
    while now < 100.0:
        for i, worker in enumerate(workers):
            if free[i] <= now:
                heard += 1
                free[i] = now + worker.charge(100, now)
        now += 0.01
    most = JOB_MESSAGES[0] + 2 * 64
    assert heard / 100 <= most + (JOB_MESSAGES[1] + 20 * 64) / 100 + 64


def test_another_job_waits_for_nobody() -> None:
    spoken(JobBudget().of("w"), 60.0, rate=10_000)
    assert JobBudget().of("w").charge(1000, 60.0) == 0


def test_new_connections_count_as_well() -> None:
    job = JobBudget()
    waits = [job.of("w").charge(0, 0.0, HELLO_MESSAGES) for _ in range(100)]
    assert waits[0] == 0
    assert waits[-1] > 5
    assert job.of("w") is job.of("w")
