"""A new coordinator and what already runs: adopted, mended, or begun anew."""

from __future__ import annotations

from typing import Any

import pytest

from shardwise.coordinator.generations import NUMBERS_APART
from shardwise.coordinator.protocol import Ack, Fault, Finished, Generation, Leave, Suspect

from .conftest import MakePlay, Play


@pytest.fixture
def after(play: MakePlay) -> MakePlay:
    """A group of three under a coordinator that was started while generation 5 ran."""

    def make(**changes: Any) -> Play:
        return play(3, **{"generation_floor": 5, **changes})

    return make


def test_a_running_group_is_adopted_without_a_word(after: MakePlay, report: Any) -> None:
    made = after()
    for index in (2, 0):
        made.back(index, 5, "training", 50, 0, 1, 2)
    assert made.state == "waiting"
    assert "for w-1 of generation 5 to come back" in made.group.report().waiting
    made.back(1, 5, "training", 51, 0, 1, 2)
    assert made.state == "training"
    assert made.group.report().members == ("w-0", "w-1", "w-2")
    made.wait(10.0)
    assert made.generation() == (0, "")
    made.say(0, report(52, generation=5))
    progress = made.group.report().progress
    assert progress is not None
    assert progress.step == 52


def test_members_that_do_not_come_are_lost_in_the_end(after: MakePlay) -> None:
    made = after()
    made.back(0, 5, "training", 50, 0, 1, 2)
    made.wait(1.0)
    made.back(1, 5, "training", 50, 0, 1, 2)
    made.wait(8.9)
    assert made.state == "waiting"
    made.wait(0.1)
    number, members = made.generation()
    assert members == "01"
    assert number > 5 + NUMBERS_APART, "generations that nobody here has heard of"
    told = made.group.report()
    assert told.recoveries == {"Unreachable": 1}
    assert [loss.worker for loss in told.losses] == ["w-2"]


@pytest.mark.parametrize("sign", ["forming", "fault", "suspect", "ack"])
def test_a_broken_group_waits_for_the_missing_less_long(after: MakePlay, sign: str) -> None:
    made = after()
    made.back(0, 5, "forming" if sign == "forming" else "training", 50, 0, 1, 2)
    made.back(1, 5, "training", 50, 0, 1, 2)
    if sign == "fault":
        made.say(0, Fault(generation=5, message="closed"))
    elif sign == "suspect":
        made.say(0, Suspect(generation=5, step=50, waited_seconds=1.0))
    elif sign == "ack":
        made.say(0, Ack(generation=6, step=50, digest=""))
    made.wait(2.9)
    assert made.generation() == (0, "")
    made.wait(0.1)
    assert made.generation()[1] == "01"


def test_a_broken_group_whose_members_are_all_back_is_mended_at_once(after: MakePlay) -> None:
    made = after()
    made.back(0, 5, "training", 50, 0, 1, 2)
    made.back(1, 5, "forming", 50, 0, 1, 2)
    made.back(2, 5, "training", 51, 0, 1, 2)
    issued = made.sent(Generation)["w-0"]
    assert [(m.index, m.step) for m in issued.members] == [(0, 50), (1, 50), (2, 51)]
    assert made.group.report().losses == ()


def test_a_member_whose_process_began_anew_meanwhile_is_not_waited_for(after: MakePlay) -> None:
    made = after()
    made.back(0, 5, "training", 50, 0, 1, 2)
    made.back(1, 5, "training", 50, 0, 1, 2)
    made.join(2)
    assert made.generation()[1] == "01"
    assert made.group.report().recoveries == {"Killed": 1}


def test_a_member_whose_pod_is_gone_is_not_waited_for(after: MakePlay) -> None:
    made = after()
    made.back(0, 5, "training", 50, 0, 1, 2)
    made.back(1, 5, "training", 50, 0, 1, 2)
    made.actions += made.group.lost("w-2", "Preempted", made.now)
    assert made.generation()[1] == "01"
    assert made.group.report().recoveries == {"Preempted": 1}


def test_a_newer_generation_than_was_recorded_counts(after: MakePlay) -> None:
    made = after()
    made.back(2, 6, "training", 40, 0, 1, 2)  # it was cut off when generation 7 formed
    made.back(0, 7, "training", 50, 0, 1)
    made.back(1, 7, "training", 50, 0, 1)
    assert made.group.report().members == ("w-0", "w-1")
    number, members = made.generation()
    assert members == "012", "the third joins as a laggard"
    assert number > 7 + NUMBERS_APART


def test_newcomers_do_not_form_a_group_while_one_may_come_back(after: MakePlay) -> None:
    made = after(gather_seconds=1.0)
    made.ready(3, 4, 5)
    made.wait(9.9)
    assert made.generation() == (0, "")
    assert "waits for workers that train already" in made.group.report().waiting
    made.wait(0.1)
    assert made.generation()[1] == "345"


def test_newcomers_fill_up_what_comes_back(after: MakePlay) -> None:
    made = after()
    made.ready(7)
    made.back(0, 5, "forming", 50, 0, 1)
    made.back(1, 5, "training", 50, 0, 1)
    assert made.generation()[1] == "017"


def test_an_adopted_group_that_was_finishing(after: MakePlay) -> None:
    made = after()
    for index in (1, 2):
        made.back(index, 5, "finishing", 100, 0, 1, 2)
        made.say(index, Finished())
    made.wait(10.0)
    assert made.generation()[1] == "12", "rank 0 did not come back: the next one writes"
    made.ack(1, 2, step=100)
    made.say(1, Finished(result={"steps": 100}))
    assert made.state == "finished"


def test_a_member_that_wants_to_leave_may_after_the_adoption(after: MakePlay) -> None:
    made = after()
    for index in range(3):
        made.back(index, 5, "training", 50, 0, 1, 2)
        if index == 0:
            made.say(0, Leave())
    issued = made.sent(Generation)
    assert issued["w-1"].soft
    assert [m.index for m in issued["w-1"].members] == [1, 2]


def test_a_switch_that_the_old_coordinator_began_is_begun_again(after: MakePlay) -> None:
    made = after()
    for index in range(3):
        made.back(index, 5, "training", 50, 0, 1, 2)
    made.actions.clear()
    made.say(1, Ack(generation=6, step=51, digest=""))
    made.wait(0.05)
    assert made.generation()[1] == "012"


def test_draining_waits_for_who_may_come_back(after: MakePlay) -> None:
    made = after()
    made.actions += made.group.drain("suspended", made.now)
    for index in range(3):
        made.back(index, 5, "training", 50, 0, 1, 2)
    issued = made.sent(Generation)
    assert len(issued) == 3
    assert all(message.members == () for message in issued.values())
