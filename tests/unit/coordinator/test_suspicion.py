"""Probes: who is out, who is only slow, and what is asked when."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from shardwise.coordinator.group import Group
from shardwise.coordinator.protocol import Generation, Leave, Probe, Suspect

from .conftest import MakePlay, Play


def suspect(made: Play, *indices: int, step: int = 0) -> None:
    number = made.group.report().generation
    for index in indices:
        made.say(index, Suspect(generation=number, step=step, waited_seconds=0.2))


def test_who_does_not_answer_is_out(training: MakePlay) -> None:
    made = training(3)
    suspect(made, 0)
    assert made.sent(Probe).keys() == {"w-0", "w-1", "w-2"}
    made.pulse(0, 1)
    made.wait(0.49)
    assert made.dropped() == []
    made.wait(0.01)
    assert made.dropped() == ["w-2"]
    assert made.begun_anew() == [], "it may only be cut off, and holds what it holds"
    assert made.generation() == (2, "01")
    assert made.group.report().recoveries == {"Unreachable": 1}


def test_who_does_not_answer_again_before_a_step_is_done_is_left_out_for_a_while(
    training: MakePlay,
) -> None:
    made = training(2)
    made.die(0)
    made.wait(0.75)
    assert made.dropped() == ["w-1"]
    made.back(1, 1, "training", 3, 0, 1)
    made.actions.clear()
    made.wait(3.0)
    assert made.generation()[1] == "1", "it may only have been cut off for a moment"
    made.wait(0.75)
    assert made.dropped() == ["w-1"]
    made.back(1, 1, "training", 3, 0, 1)
    made.actions.clear()
    made.wait(4.9)
    assert made.generation() == (0, "")
    made.wait(0.1)
    assert made.generation()[1] == "1"


def test_where_all_are_slow_to_answer_the_silent_get_more_time(training: MakePlay) -> None:
    made = training(3)
    suspect(made, 0)
    made.wait(0.2)
    made.pulse(0, 1)  # after 0.2 s: these machines are overloaded
    made.wait(1.9)
    assert made.dropped() == [], "the limit has passed"
    made.wait(0.6)
    assert made.dropped() == ["w-2"], "but not for ever"


def test_a_process_that_was_held_up_itself_asks_again(training: MakePlay) -> None:
    made = training(2)
    suspect(made, 0)
    made.actions.clear()
    made.pulse(0)
    made.now = 2.0
    made.actions += made.group.tick(made.now)
    assert made.dropped() == []
    assert made.sent(Probe).keys() == {"w-0", "w-1"}
    made.pulse(0)
    made.wait(0.5)
    assert made.dropped() == ["w-1"]


def test_a_main_thread_that_stands_still_is_out_once_it_is_known_to(training: MakePlay) -> None:
    made = training(3)
    suspect(made, 0)
    made.pulse(0, 1, age_seconds=0.2)
    made.pulse(2, activity="computing", age_seconds=0.6, usual_seconds=0.05)
    assert made.dropped() == []
    made.sent(Probe)
    made.wait(0.5)
    assert made.sent(Probe).keys() == {"w-0", "w-1", "w-2"}, "when it can be known"
    made.pulse(0, 1, age_seconds=0.7)
    made.pulse(2, activity="computing", age_seconds=1.1, usual_seconds=0.05)
    assert made.dropped() == made.begun_anew() == ["w-2"]
    assert made.group.report().recoveries == {"Hung": 1}
    made.ack(0, 1, step=3)
    made.back(2, 1, "training", 3, 0, 1, 2)
    made.actions.clear()
    made.wait(4.9)
    assert made.generation() == (0, ""), "it may hang still, and is not taken in at once"
    made.wait(0.1)
    assert made.generation() == (3, "012")


def test_where_all_stand_still_and_another_is_there_it_takes_their_place(
    training: MakePlay,
) -> None:
    made = training(1)
    made.join(1)
    made.wait(15.0)
    made.pulse(0, activity="computing", age_seconds=20.0, usual_seconds=0.05)
    assert made.dropped() == ["w-0"]


@pytest.mark.parametrize("workers", [1, 3])
def test_where_all_stand_still_nobody_is_out(training: MakePlay, workers: int) -> None:
    """Nobody could go on without the others, and what was done is in their memory."""
    made = training(workers)
    everyone = range(workers)
    for _ in range(3):
        made.wait(15.0)  # rank 0 has not reported
        assert made.sent(Probe).keys() == {f"w-{index}" for index in everyone}
        made.pulse(*everyone, activity="computing", age_seconds=20.0, usual_seconds=0.05)
        assert made.dropped() == []
        assert made.state == "training"
    assert made.group.report().recoveries == {}


@pytest.mark.parametrize(
    ("activity", "age", "usual"),
    [
        ("computing", 9.0, 1.0),
        ("computing", 0.9, 0.001),
        ("computing", 59.0, 0.0),
        ("loading", 59.0, 0.001),
    ],
)
def test_a_slow_worker_is_not_out_and_asked_on(
    training: MakePlay, activity: str, age: float, usual: float
) -> None:
    made = training(2)
    suspect(made, 0)
    for _ in range(20):
        assert made.sent(Probe).keys() == {"w-0", "w-1"}
        made.pulse(0)
        made.pulse(1, activity=activity, age_seconds=age, usual_seconds=usual)
        deadline = made.group.next_deadline()
        assert deadline is not None
        # Workers take a coordinator that is silent for 2 s for dead.
        assert 0.1 <= deadline - made.now <= 1.0
        made.wait(deadline - made.now)
    made.pulse(0, 1, activity="computing", step=1)
    deadline = made.group.next_deadline()
    assert deadline is None or deadline >= 15.0
    assert made.state == "training"
    assert made.dropped() == []


def test_a_suspicion_ends_with_the_wait_it_came_from(training: MakePlay) -> None:
    made = training(2)
    suspect(made, 0)
    made.pulse(0, activity="computing")
    made.pulse(1, activity="exchanging", age_seconds=5.0)
    deadline = made.group.next_deadline()
    assert deadline is None or deadline >= 15.0


def test_an_exchange_in_which_all_wait_is_broken(training: MakePlay) -> None:
    made = training(2)
    suspect(made, 0, 1)
    made.sent(Probe)
    made.pulse(0, 1, age_seconds=0.3)
    for age in (0.6, 0.9):
        assert made.state == "training"
        made.wait(0.3)
        assert made.sent(Probe)
        made.pulse(0, 1, age_seconds=age)
    assert made.state == "forming"
    made.wait(0.05)
    assert made.generation() == (2, "01")
    assert made.group.report().recoveries == {"Broken": 1}


def test_an_exchange_that_is_slow_from_the_start_passes_in_the_end(training: MakePlay) -> None:
    made = training(2)
    for attempt in range(4):
        suspect(made, 0)
        for rounds in range(1, 100):
            age = 0.3 * rounds
            made.pulse(0, 1, age_seconds=age, generation=attempt + 1)
            if made.state == "forming":
                break
            made.wait(0.3)
        assert age > 0.5 * 2**attempt, "it was given twice the time"
        deadline = made.group.next_deadline()
        assert deadline is not None
        made.wait(deadline - made.now)
        made.ack(0, 1)


def test_who_is_in_an_older_generation_breaks_the_group(training: MakePlay) -> None:
    made = training(2)
    suspect(made, 0)
    for _ in range(2):
        made.pulse(0)
        made.pulse(1, activity="waiting", generation=0, phase="ready")
        made.wait(0.3)
    assert made.generation() == (2, "01")


def without_an_ack(training: MakePlay) -> Play:
    """Of three, one has died, one has acked the next generation, and the last is asked why not."""
    made = training(3)
    made.die(0)
    made.ack(1)
    made.actions.clear()
    made.wait(0.2)
    assert made.actions == []
    made.wait(0.05)
    assert made.sent(Probe).keys() == {"w-2"}
    return made


def test_acks_that_are_overdue_are_asked_for(training: MakePlay) -> None:
    made = without_an_ack(training)
    made.pulse(2, activity="computing", age_seconds=5.0, usual_seconds=2.0)
    made.wait(0.1)
    assert made.sent(Probe).keys() == {"w-2"}
    made.wait(0.5)
    assert made.dropped() == ["w-2"]
    assert made.generation() == (3, "1")


def test_a_transfer_of_a_group_that_is_over_is_not_waited_for(training: MakePlay) -> None:
    """Nor does it matter that nothing is known of the worker's usual times."""
    made = without_an_ack(training)
    made.pulse(2, activity="exchanging", age_seconds=0.9, usual_seconds=0.0)
    assert made.dropped() == []
    made.wait(0.2)
    made.pulse(2, activity="exchanging", age_seconds=1.1, usual_seconds=0.0)
    assert made.dropped() == made.begun_anew() == ["w-2"]
    assert made.generation() == (3, "1")


def test_a_joiner_that_does_not_ack_holds_nobody_up(training: MakePlay) -> None:
    made = training(3)
    made.die(2)
    made.ack(0, 1)
    made.ready(2)
    made.actions.clear()
    made.wait(0.25)
    assert made.sent(Probe).keys() == {"w-2"}
    made.wait(0.5)
    assert made.dropped() == ["w-2"]
    assert made.generation()[1] == "01"


def test_members_on_the_way_to_a_boundary_are_not_asked(training: MakePlay) -> None:
    made = training(3)
    made.say(2, Leave())
    made.actions.clear()
    made.wait(14.0)
    assert made.sent(Probe) == {}
    made.ack(0)
    made.wait(0.25)
    assert made.sent(Probe).keys() == {"w-1"}, "one is past it"


def test_who_is_cut_off_after_an_answer_is_out_soon(training: MakePlay) -> None:
    made = training(3)
    suspect(made, 0)
    made.pulse(0, age_seconds=0.1)
    made.pulse(1, 2, activity="computing", usual_seconds=0.02)
    made.sent(Probe)
    made.wait(0.1)  # not the second after which one that computes could be known to be stuck
    assert made.sent(Probe).keys() == {"w-0", "w-1", "w-2"}
    made.pulse(0, 2, age_seconds=0.2)
    made.wait(0.5)
    assert made.dropped() == ["w-1"]


def test_rounds_of_a_long_wait_become_rare(training: MakePlay) -> None:
    made = training(2)
    suspect(made, 0)
    asked = []
    while made.now < 20.0:
        made.pulse(0, age_seconds=made.now)
        made.pulse(1, activity="computing", usual_seconds=60.0)
        deadline = made.group.next_deadline()
        assert deadline is not None
        made.wait(deadline - made.now)
        if made.sent(Probe):
            asked.append(made.now)
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert pauses[0] < 0.3
    assert all(pause == pytest.approx(1.0) for pause in pauses[4:])


def test_suspicions_of_older_generations_mean_nothing(training: MakePlay) -> None:
    made = training(2)
    made.say(0, Suspect(generation=0, step=0, waited_seconds=1.0))
    assert made.sent(Probe) == {}


def test_a_group_of_which_nothing_is_heard_is_asked(training: MakePlay) -> None:
    made = training(1)
    made.wait(14.9)
    assert made.actions == []
    made.wait(0.1)
    assert made.sent(Probe).keys() == {"w-0"}
    made.pulse(0, activity="computing")
    made.wait(14.9)
    assert made.actions == []
    made.wait(0.1)
    assert made.sent(Probe).keys() == {"w-0"}
    made.wait(0.5)
    assert made.dropped() == ["w-0"]


def test_two_hang_at_once(training: MakePlay) -> None:
    made = training(4)
    suspect(made, 0)
    made.pulse(0, 3)
    made.wait(0.5)
    assert sorted(made.dropped()) == ["w-1", "w-2"]
    assert made.generation() == (2, "03")


def test_the_detection_time_is_the_callers(assignment: Callable[..., object]) -> None:
    made = Play(2)
    made.group = Group(assignment(2), 0.0, detection_seconds=2.0, secret=bytes)  # type: ignore[arg-type]
    made.ready(0, 1)
    made.ack(0, 1)
    suspect(made, 0)
    made.wait(1.9)
    assert made.dropped() == []
    made.wait(0.1)
    assert made.sent(Generation) == {} or made.dropped() == ["w-0", "w-1"]
    assert made.dropped() == ["w-0", "w-1"]
