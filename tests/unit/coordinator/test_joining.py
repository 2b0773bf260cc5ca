"""Joins, leaves, resizing and draining: who is in the next generation, and when."""

from __future__ import annotations

import pytest

from shardwise.coordinator.generations import HEIR_SECONDS
from shardwise.coordinator.protocol import (
    Bye,
    CheckpointReport,
    Fault,
    Generation,
    Leave,
    Ready,
)
from shardwise.coordinator.report import CheckpointState
from shardwise.coordinator.trouble import REGROUP_SECONDS

from .conftest import MakePlay


def test_a_joiner_comes_in_at_a_boundary(training: MakePlay) -> None:
    made = training(3)
    made.die(2)
    made.ack(0, 1, step=4)
    made.actions.clear()
    made.ready(2)
    issued = made.sent(Generation)
    assert issued.keys() == {"w-0", "w-1", "w-2"}
    assert issued["w-0"].soft
    assert not issued["w-2"].soft, "it has no group to go on with"
    made.ack(2)
    assert made.state == "training"
    made.ack(0, 1, step=6)
    assert made.gone() == {"w-0", "w-1", "w-2"}
    assert made.group.report().recoveries == {"Killed": 1, "Joined": 1}


def test_more_joiners_wait_for_the_one_that_is_under_way(training: MakePlay) -> None:
    made = training(4)
    made.die(1, 2, 3)
    made.ack(0)
    made.ready(1)
    assert made.generation()[1] == "01"
    made.ready(2, 3)
    assert made.generation() == (0, "")
    made.ack(0, 1)
    assert made.generation()[1] == "0123"


def test_a_joiner_that_dies_while_joining(training: MakePlay) -> None:
    made = training(3)
    made.die(2)
    made.ack(0, 1)
    made.ready(2)
    made.ack(2)
    made.die(2)
    issued = made.sent(Generation)
    assert not issued["w-0"].soft
    assert [m.worker for m in issued["w-0"].members] == ["w-0", "w-1"]


def test_a_death_while_a_join_is_pending_takes_the_joiner_in(training: MakePlay) -> None:
    made = training(3)
    made.die(2)
    made.ack(0, 1)
    made.ready(2)
    made.generation()
    made.die(0)
    issued = made.sent(Generation)
    assert not issued["w-1"].soft
    assert [m.worker for m in issued["w-1"].members] == ["w-1", "w-2"]


def test_who_asks_to_leave_is_out_at_the_next_boundary(training: MakePlay) -> None:
    made = training(3)
    made.say(1, Leave())
    issued = made.sent(Generation)
    assert issued.keys() == {"w-0", "w-1", "w-2"}
    assert all(message.soft for message in issued.values())
    made.die(1)
    assert made.generation() == (0, "")
    made.ack(0, 2, step=3)
    assert made.gone() == {"w-0", "w-2"}
    told = made.group.report()
    assert (told.recoveries, told.losses) == ({"Preempted": 1}, ())


def test_a_leaver_that_dies_before_the_boundary(training: MakePlay) -> None:
    made = training(3)
    made.say(1, Leave())
    made.actions.clear()
    made.die(1)
    made.say(0, Fault(generation=1, message="reset", peer="w-1"))
    made.wait(REGROUP_SECONDS)
    assert made.generation() == (3, "02")


def test_neighbours_leave_one_after_the_other(training: MakePlay) -> None:
    made = training(4)
    made.actions += made.group.resize(2, 1, made.now)
    assert made.generation() == (2, "013"), "2 goes first: 3 holds a copy of its part"
    made.ack(0, 1, 3)
    assert made.generation() == (3, "01")
    made.ack(0, 1)
    assert made.group.report().recoveries == {"Resized": 2}
    assert set(made.group.report().standbys) == {"w-2", "w-3"}


def test_who_is_scaled_down_and_asks_to_leave_is_not_preempted(training: MakePlay) -> None:
    made = training(4)
    made.actions += made.group.resize(2, 1, made.now)
    made.say(2, Leave())
    made.say(3, Leave())
    made.ack(0, 1, 3)
    made.ack(0, 1)
    assert made.group.report().recoveries == {"Resized": 2}


def test_a_death_while_the_task_shrinks_drops_nobody_else(training: MakePlay) -> None:
    made = training(4)
    made.actions += made.group.resize(2, 1, made.now)
    made.actions.clear()
    made.die(0)
    assert made.generation()[1] == "123", "any of them may hold the newest step"
    made.ack(1, 2, step=5)
    made.ack(3, step=6)
    assert made.generation()[1] == "12"


def test_the_last_one_to_leave_writes_a_checkpoint(training: MakePlay) -> None:
    made = training(1)
    made.say(0, Leave())
    issued = made.sent(Generation)["w-0"]
    assert (issued.members, issued.soft) == ((), True)
    made.die(0)
    assert made.state == "waiting"
    assert made.group.report().losses == ()


@pytest.mark.parametrize("loads", [False, True])
def test_the_last_holder_stays_until_a_newcomer_has_its_state(
    training: MakePlay, loads: bool
) -> None:
    made = training(2)
    made.die(1)
    made.ack(0, step=9)
    made.actions.clear()
    if loads:
        made.join(1)
        made.say(0, Leave())
        made.wait(HEIR_SECONDS - 0.1)
        assert made.generation() == (0, ""), "the newcomer loads the task"
        made.say(1, Ready(fingerprint={"threads": 1}))
    else:
        made.ready(1)
        made.say(0, Leave())
    assert made.generation()[1] == "01"
    made.ack(0, 1, step=9)
    assert made.generation()[1] == "1"
    made.die(0)
    made.ack(1, step=10)
    assert made.gone() >= {"w-1"}


@pytest.mark.parametrize("dies", [False, True])
def test_a_newcomer_that_does_not_come_to_its_end_of_loading_holds_up_nobody_for_long(
    training: MakePlay, dies: bool
) -> None:
    made = training(2)
    made.die(1)
    made.ack(0, step=9)
    made.join(1)
    made.actions.clear()
    made.say(0, Leave())
    assert made.generation() == (0, "")
    if dies:
        made.die(1)
    else:
        made.wait(HEIR_SECONDS)
    issued = made.sent(Generation)["w-0"]
    assert (issued.members, issued.soft) == ((), True)
    deadline = made.group.next_deadline()
    assert deadline is None or deadline > made.now


def test_who_is_in_no_group_may_go_at_once(training: MakePlay) -> None:
    made = training(2)
    made.ready(2)
    made.join(3)
    for index in (2, 3):
        made.say(index, Leave())
    assert made.sent(Bye).keys() == {"w-2", "w-3"}
    assert made.generation() == (0, "")
    made.die(0)
    assert made.generation() == (2, "1")


def test_leaving_while_too_few_wait(training: MakePlay) -> None:
    made = training(2, min_workers=2)
    made.die(1)
    made.ack(0, step=5)
    made.actions.clear()
    made.say(0, Leave())
    issued = made.sent(Generation)["w-0"]
    assert (issued.members, issued.generation) == ((), 3), "it holds the last copy of the state"


def test_a_task_that_grows_takes_its_standbys_in(training: MakePlay) -> None:
    made = training(2)
    made.ready(2, 3)
    made.actions += made.group.resize(3, 1, made.now)
    assert made.generation() == (2, "012")
    made.actions += made.group.resize(3, 1, made.now)
    assert made.generation() == (0, "")


def test_draining_lets_everybody_leave(training: MakePlay) -> None:
    made = training(2)
    made.ready(2)
    made.actions += made.group.drain("the job is suspended", made.now)
    issued = made.sent(Generation)
    assert issued.keys() == {"w-0", "w-1"}
    assert all(message.members == () and message.soft for message in issued.values())
    assert made.sent(Bye).keys() == {"w-2"}
    made.say(0, CheckpointReport(step=5, bytes=10, seconds=0.5))
    made.die(0, 1)
    told = made.group.report()
    assert (told.state, told.members, told.waiting) == (
        "waiting",
        (),
        "the job is suspended: 1 workers write a checkpoint and leave",
    )
    made.die(2)
    assert made.group.report().waiting == "the job is suspended"
    assert told.checkpoint == CheckpointState(step=5, at=0.0, bytes=10, seconds=0.5)
    assert (told.losses, told.recoveries) == ((), {})
    made.ready(0)
    assert made.sent(Bye).keys() == {"w-0"}


def test_draining_a_group_that_is_broken_mends_it_first(training: MakePlay) -> None:
    made = training(3, min_workers=3)
    made.die(0)
    made.ack(1, 2, step=5)
    assert made.state == "waiting"
    made.actions.clear()
    made.actions += made.group.drain("suspended", made.now)
    assert made.gone() == {"w-1", "w-2"}, "they write the checkpoint together"
    assert made.generation()[1] == ""
