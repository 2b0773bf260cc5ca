"""Losses and faults: who is in the next generation, when, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from shardwise.coordinator.protocol import (
    CheckpointReport,
    Fault,
    Finished,
    Generation,
)
from shardwise.coordinator.report import CheckpointState
from shardwise.coordinator.trouble import REGROUP_LIMIT_SECONDS, REGROUP_SECONDS

from .conftest import MakePlay, Play


def fault(made: Play, *indices: int, peer: int | None = None) -> None:
    number = made.group.report().generation
    for index in indices:
        name = None if peer is None else f"w-{peer}"
        made.say(index, Fault(generation=number, message="connection reset", peer=name))


# Losses.


def test_a_death_gives_the_others_a_generation_at_once(training: MakePlay, report: Any) -> None:
    made = training(3)
    made.say(0, report(42))
    made.now = 10.0
    made.die(1)
    issued = made.sent(Generation)
    assert issued.keys() == {"w-0", "w-2"}
    assert not issued["w-0"].soft
    assert [(m.worker, m.step) for m in issued["w-0"].members] == [("w-0", 42), ("w-2", 41)]
    made.now = 10.05
    made.ack(0, 2, step=42)
    assert made.gone() == {"w-0", "w-2"}
    told = made.group.report()
    assert told.recoveries == {"Killed": 1}
    assert told.recovery_seconds == pytest.approx(0.05)
    (loss,) = told.losses
    assert (loss.worker, loss.index, loss.cause, loss.at, loss.step) == (
        "w-1",
        1,
        "Killed",
        10.0,
        42,
    )
    assert loss.seconds == pytest.approx(0.05)
    assert told.lost_steps == 0


def test_a_standby_is_promoted_in_the_same_generation(training: MakePlay) -> None:
    made = training(2)
    made.ready(5, 4)
    made.die(0)
    assert made.generation() == (2, "14")
    made.ack(1, 4)
    assert made.group.report().recoveries == {"Killed": 1, "Joined": 1}


def test_a_death_while_a_generation_forms(training: MakePlay) -> None:
    made = training(3)
    made.die(0)
    made.ack(1)
    made.die(2)
    assert made.generation() == (3, "1")
    made.ack(1)
    assert made.gone() == {"w-1"}
    assert made.group.report().recoveries == {"Killed": 2}


def test_too_few_wait_in_a_generation_without_a_go(training: MakePlay) -> None:
    made = training(2, min_workers=2)
    made.die(1)
    assert made.generation() == (2, "0")
    made.ack(0, step=7)
    assert made.gone() == set()
    assert made.state == "waiting"
    assert "1 of 2 workers is ready, at least 2 are needed" in made.group.report().waiting
    made.wait(100.0)
    made.ready(1)
    assert made.generation() == (3, "01")
    made.ack(0, step=7)
    made.ack(1)
    assert made.gone() == {"w-0", "w-1"}
    assert made.group.report().waiting == ""


def test_a_smaller_minimum_lets_those_who_wait_go(training: MakePlay) -> None:
    made = training(2, min_workers=2)
    made.die(1)
    made.ack(0)
    made.actions += made.group.resize(2, 1, made.now)
    assert made.gone() == {"w-0"}


def test_a_pods_end_counts_by_its_cause_and_cuts_the_worker_off(training: MakePlay) -> None:
    made = training(2)
    made.actions += made.group.lost("w-1", "Preempted", made.now)
    assert made.dropped() == ["w-1"]
    assert made.generation() == (2, "0")
    assert made.group.report().recoveries == {"Preempted": 1}


def test_after_the_loss_of_all_a_group_starts_anew_and_the_steps_are_counted(
    training: MakePlay, report: Any
) -> None:
    made = training(2, gather_seconds=3.0)
    made.say(0, report(50))
    made.die(0, 1)
    assert made.state == "waiting"
    made.actions.clear()
    made.ready(0, 1)
    made.wait(0.9)
    assert made.generation() == (0, ""), "those that are only cut off could still come back"
    made.wait(0.2)
    number, members = made.generation()
    assert members == "01"
    made.ack(0, 1, step=40)
    assert made.group.report().lost_steps == 10
    made.say(0, report(41, generation=number))
    told = made.group.report()
    assert told.progress is not None
    assert told.progress.step == 41


def test_all_connections_ending_does_not_end_the_group(training: MakePlay) -> None:
    made = training(2)
    made.die(0, 1)
    made.actions.clear()
    made.back(1, 1, "training", 9, 0, 1)
    made.back(0, 1, "training", 9, 0, 1)
    assert made.state == "training"
    assert made.generation() == (0, "")


def test_a_process_that_begins_anew_before_its_old_ones_end_is_seen(training: MakePlay) -> None:
    made = training(2)
    made.ready(1)
    issued = made.sent(Generation)
    assert [m.worker for m in issued["w-0"].members] == ["w-0"]
    assert made.group.report().recoveries == {"Killed": 1}
    made.ack(0, step=3)
    assert made.generation() == (3, "01")


# Reconnecting.


def test_a_new_connection_of_a_training_member_disturbs_nobody(training: MakePlay) -> None:
    made = training(2)
    made.back(1, 1, "training", 5, 0, 1)
    made.wait(10.0)
    assert made.state == "training"
    assert made.generation() == (0, "")


def test_what_its_old_connection_may_have_lost_is_sent_again(training: MakePlay) -> None:
    made = training(3)
    made.die(0)
    assert made.generation() == (2, "12")
    made.back(1, 1, "training", 5, 0, 1, 2)
    assert made.sent(Generation).keys() == {"w-1"}
    made.ack(1)
    made.back(1, 2, "forming", 5, 1, 2)
    assert made.generation() == (3, "12"), "its ack, or the go, may be lost"


# Faults.


def test_a_fault_gives_the_same_members_a_new_generation(training: MakePlay) -> None:
    made = training(2)
    fault(made, 1)
    made.now = 0.01
    fault(made, 0)
    assert made.state == "forming"
    assert made.group.next_deadline() == pytest.approx(REGROUP_SECONDS)
    made.wait(REGROUP_SECONDS)
    assert made.generation() == (2, "01")
    made.ack(0, step=60)
    made.ack(1, step=61)
    assert made.gone() == {"w-0", "w-1"}
    told = made.group.report()
    assert (told.recoveries, told.losses) == ({"Broken": 1}, ())


def test_the_death_behind_a_fault_needs_no_further_wait(training: MakePlay) -> None:
    made = training(3)
    fault(made, 1, 2)
    made.die(0)
    assert made.generation() == (2, "12")
    assert made.group.report().recoveries == {"Killed": 1}


def test_faults_in_a_row_are_tried_again_ever_more_slowly(training: MakePlay) -> None:
    made = training(2)
    delays = []
    for _ in range(9):
        fault(made, 1)
        deadline = made.group.next_deadline()
        assert deadline is not None
        delays.append(round(deadline - made.now, 6))
        made.wait(deadline - made.now)
        made.ack(0, 1)
        made.actions.clear()
    assert delays[:3] == [REGROUP_SECONDS, 2 * REGROUP_SECONDS, 4 * REGROUP_SECONDS]
    assert delays[-1] == REGROUP_LIMIT_SECONDS
    fault(made, 1)
    assert "10 times in a row without a step done" in made.group.report().waiting
    made.wait(5.0)
    made.ack(0, 1, step=1)
    fault(made, 1)
    assert made.group.next_deadline() == pytest.approx(made.now + REGROUP_SECONDS)


def test_a_peer_that_nobody_reaches_twice_is_left_out_for_a_while(training: MakePlay) -> None:
    made = training(3)
    for _ in range(2):
        made.actions.clear()
        fault(made, 0, 1, peer=2)
        fault(made, 2, peer=0)
        made.wait(0.2)
        if not made.dropped():
            made.ack(0, 1, 2)
    assert made.dropped() == ["w-2"]
    number, members = made.generation()
    assert members == "01"
    made.ack(0, 1)
    made.back(2, number - 1, "forming", 0, 0, 1, 2)
    made.wait(4.8)
    assert made.generation() == (0, "")
    made.wait(0.2)
    assert made.generation() == (number + 1, "012")


def test_nobody_is_left_out_where_too_few_would_remain(training: MakePlay) -> None:
    made = training(2, min_workers=2)
    for _ in range(4):
        fault(made, 0, peer=1)
        deadline = made.group.next_deadline()
        assert deadline is not None
        made.wait(deadline - made.now)
        assert made.generation()[1] == "01"
        made.ack(0, 1)
    assert made.dropped() == []


def test_faults_of_older_generations_mean_nothing(training: MakePlay) -> None:
    made = training(2)
    fault(made, 1)
    made.wait(1.0)
    made.ack(0, 1)
    made.actions.clear()
    made.say(0, Fault(generation=1, message="late"))
    assert made.group.next_deadline() is None


# What is counted.


def test_a_failed_checkpoint_leaves_the_last_good_one_in_place(training: MakePlay) -> None:
    made = training(1)
    made.say(0, CheckpointReport(step=5, bytes=10, seconds=0.5))
    made.say(0, CheckpointReport(step=9, bytes=0, seconds=0.1, error="disk full"))
    assert made.group.report().checkpoint == CheckpointState(
        step=5, at=0.0, bytes=10, seconds=0.5, error="disk full"
    )


def test_totals_go_on_from_those_of_an_earlier_coordinator(play: MakePlay, report: Any) -> None:
    made = play(
        1,
        recoveries={"Killed": 3},
        seconds={"productive": 10.0},
        lost_steps=7,
        reached_step=100,
    )
    made.ready(0)
    made.ack(0, step=90)
    made.say(0, report(91))
    told = made.group.report()
    assert (told.recoveries, told.seconds, told.lost_steps) == (
        {"Killed": 3},
        {"productive": 11.0},
        17,
    )


def test_who_goes_after_the_end_is_no_loss(training: MakePlay) -> None:
    made = training(2)
    made.say(1, Finished(result=None))
    made.say(0, Finished(result={"steps": 3}))
    assert made.group.report().state == "finished"
    for index in (0, 1):
        made.actions += made.group.disconnected(f"w-{index}", made.now)
    report = made.group.report()
    assert report.connected == ()
    assert report.recoveries == {}
    assert report.losses == ()
