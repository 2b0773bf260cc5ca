"""The record of a run: compact, and the same after any number of copies of its tail."""

from __future__ import annotations

import sys

import pytest

from shardwise.engine.history import History


def course(steps, evaluate_every=3, metrics=lambda step: {"loss": step / 7, "accuracy": 0.1}):
    history = History(steps_per_epoch=4)
    for step in range(1, steps + 1):
        history.add_step(1 / step, 0.1 * step)
        if step % evaluate_every == 0:
            history.add_evaluation(step, metrics(step))
    return history


def same(one, other):
    assert list(one.rows()) == list(other.rows())
    assert one.evaluations == other.evaluations


def test_rows_tell_step_epoch_loss_and_rate():
    history = course(6)
    assert list(history.rows())[4] == (5, 1, 1 / 5, 0.1 * 5)
    assert history.last_metrics == {"loss": 6 / 7, "accuracy": 0.1}
    assert history.last_loss == 1 / 6
    assert list(history.losses) == [1 / step for step in range(1, 7)]
    assert History(4).last_loss is None


@pytest.mark.parametrize("behind", [(0, 0), (4, 3), (6, 3), (6, 6)])
def test_a_laggard_copies_what_it_lacks(behind):
    step, evaluated = behind
    ahead, laggard = course(6), course(step)
    laggard.evaluations = [entry for entry in laggard.evaluations if entry[0] <= evaluated]
    laggard.extend(ahead.to_bytes(step, evaluated))
    same(laggard, ahead)


def test_figures_that_are_not_finite_survive():
    history = course(3, metrics=lambda step: {"loss": float("inf"), "score": float("nan")})
    copy = History(4)
    copy.extend(history.to_bytes())
    assert copy.last_metrics["loss"] == float("inf")
    assert copy.last_metrics["score"] != copy.last_metrics["score"]


def test_a_gap_and_damage_are_errors():
    ahead = course(6)
    with pytest.raises(ValueError, match="from step 4 cannot follow on 3 steps"):
        course(3).extend(ahead.to_bytes(4))
    with pytest.raises(ValueError, match="too short"):
        course(0).extend(b"")
    with pytest.raises(ValueError, match="a history of 6 steps has"):
        course(0).extend(ahead.to_bytes()[:-1])


def test_a_million_steps_are_16_bytes_each():
    history = History(1000)
    for _ in range(1_000_000):
        history.add_step(0.5, 0.1)
    assert sys.getsizeof(history._rows) < 20e6
    assert len(history.to_bytes()) < 17e6
    assert len(history.to_bytes(999_999)) < 100
