"""How a group forms, what its members may say, and how its task ends."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from shardwise.coordinator.protocol import (
    Ack,
    Bye,
    Failed,
    Finished,
    Generation,
    Go,
    KeyValue,
    Member,
    Ready,
    Refusal,
    Refused,
    Stop,
    Welcome,
)

from .conftest import MakePlay


def test_a_group_forms_in_two_phases(play: MakePlay) -> None:
    made = play(2)
    made.join(0, 1)
    assert made.sent(Welcome).keys() == {"w-0", "w-1"}
    made.say(1, Ready(fingerprint={"threads": 1}))
    assert made.state == "waiting"
    made.say(0, Ready(fingerprint={"threads": 1}))
    members = (Member(worker="w-0", index=0, step=0), Member(worker="w-1", index=1, step=0))
    issued = Generation(generation=1, members=members, soft=False)
    assert made.sent(Generation) == dict.fromkeys(["w-0", "w-1"], issued)
    made.ack(1)
    assert made.gone() == set()
    assert made.state == "forming"
    made.ack(0)
    go = Go(generation=1, members=members, steps=(0, 0), secret=bytes([1]) * 32)
    assert made.sent(Go) == dict.fromkeys(["w-0", "w-1"], go)
    assert made.state == "training"
    assert made.group.report().members == ("w-0", "w-1")


def test_each_generation_has_a_secret_of_its_own_that_only_its_members_are_told(
    play: MakePlay,
) -> None:
    made = play(2)
    made.ready(0, 1, 2)
    made.ack(0, 1)
    first = made.sent(Go)
    assert first.keys() == {"w-0", "w-1"}, "who stands by is not told"
    made.die(1)
    made.ack(0, 2)
    second = made.sent(Go)
    assert second.keys() == {"w-0", "w-2"}
    secrets = {go.secret for go in (*first.values(), *second.values())}
    assert secrets == {bytes([1]) * 32, bytes([2]) * 32}


def test_a_coordinator_that_takes_over_draws_no_secret_for_a_group_that_runs(
    play: MakePlay,
) -> None:
    made = play(2, generation_floor=4)
    made.back(0, 4, "training", 9, 0, 1)
    made.back(1, 4, "training", 9, 0, 1)
    made.wait(1.0)
    assert made.state == "training"
    assert made.sent(Go) == {}


def test_the_secret_is_in_no_text(play: MakePlay) -> None:
    made = play(2)
    made.ready(0, 1)
    made.ack(0, 1)
    shown = f"{made.actions} {made.group.report()}"
    assert "Go(" in shown
    secret = made.sent(Go)["w-0"].secret
    for form in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode()):
        assert form not in shown


def test_fewer_than_all_start_once_nobody_else_comes(play: MakePlay) -> None:
    made = play(4, min_workers=2, gather_seconds=5.0)
    made.ready(1)
    made.wait(60.0)
    assert made.generation() == (0, "")
    assert made.group.report().waiting == "1 of 4 workers is ready, at least 2 are needed"
    made.ready(3)
    made.wait(4.0)
    made.join(0)
    made.wait(4.0)
    assert made.generation() == (0, "")
    assert "starts once no more have come for 5 s" in made.group.report().waiting
    made.wait(1.0)
    assert made.generation() == (1, "13")


def test_indices_need_not_be_contiguous_and_rank_the_members(play: MakePlay) -> None:
    made = play(2)
    made.ready(7, 3)
    assert made.generation() == (1, "37")


def test_more_than_the_workers_stand_by(play: MakePlay) -> None:
    made = play(2)
    made.ready(2, 1, 0)
    assert made.generation() == (1, "12")
    made.ack(1, 2)
    report = made.group.report()
    assert (report.members, report.standbys) == (("w-1", "w-2"), ("w-0",))
    made.wait(10.0)
    assert made.generation() == (0, "")


def test_keys_of_the_current_generation_go_to_every_member(training: MakePlay) -> None:
    made = training(2)
    made.say(0, KeyValue(generation=1, key="k", value=b"v"))
    assert made.sent(KeyValue).keys() == {"w-0", "w-1"}
    made.say(0, KeyValue(generation=2, key="k", value=b"v"))
    assert made.sent(KeyValue) == {}


def test_while_nothing_fails_nothing_is_sent(training: MakePlay, report: Any) -> None:
    made = training(3)
    for step in range(1, 20):
        made.say(0, report(step))
        made.wait(5.0)
    assert made.actions == []
    told = made.group.report()
    assert told.seconds == {"productive": 19.0}
    assert told.progress is not None
    assert told.progress.step == 19


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"index": 1, "worker": "w-0"}, "w-0 is index 0 here, not 1"),
        (
            {"index": 1, "fingerprint": {"torch": "2.12.0"}},
            "torch is 2.12.0 on w-1 but 2.13.0 on w-0",
        ),
        (
            {"index": 1, "fingerprint": {"torch": "2.13.0"}, "phase": "ready"},
            "threads is unset on w-1 but 1 on w-0",
        ),
    ],
)
def test_joiners_that_do_not_fit_are_refused(
    play: MakePlay, changes: dict[str, Any], problem: str
) -> None:
    made = play(2)
    made.ready(0)
    with pytest.raises(Refused) as caught:
        made.join(**{"worker": "w-1", **changes}) if "index" not in changes else made.join(
            changes["index"], **{key: each for key, each in changes.items() if key != "index"}
        )
    assert caught.value.reason == "RefusedWorker"
    assert problem in caught.value.message
    assert made.group.report().connected == ("w-0",)


def test_what_loading_shows_must_be_the_same(play: MakePlay) -> None:
    made = play(2)
    made.ready(0)
    made.join(1)
    made.say(1, Ready(fingerprint={"threads": 2}))
    assert "threads is 2 on w-1 but 1 on w-0" in made.sent(Refusal)["w-1"].message
    assert made.group.report().connected == ("w-0",)


def test_different_states_at_one_step_are_refused(play: MakePlay) -> None:
    made = play(2)
    made.ready(0, 1)
    made.say(0, Ack(generation=1, step=0, digest="aaaa"))
    made.say(1, Ack(generation=1, step=0, digest="bbbb"))
    assert made.sent(Stop).keys() == {"w-0", "w-1"}
    failure = made.group.failure
    assert failure is not None
    assert failure.reason == "RefusedWorker"
    for part in ("w-0", "w-1", "aaaa", "bbbb", "not deterministic"):
        assert part in failure.message


def test_failing_user_code_ends_the_task_at_once(training: MakePlay) -> None:
    made = training(2)
    made.say(1, Failed(reason="UserCodeFailed", message="ValueError:\n no", detail="Traceback"))
    assert made.sent(Bye).keys() == {"w-1"}
    assert made.sent(Stop).keys() == {"w-0"}
    failure = made.group.report().failure
    assert failure is not None
    assert (failure.reason, failure.message) == ("UserCodeFailed", "ValueError: no")
    assert (failure.detail, failure.worker) == ("Traceback", "w-1")
    made.say(0, Failed(reason="Other", message="me too"))
    assert made.sent(Bye).keys() == {"w-0"}
    assert made.group.failure == failure
    made.ready(5)
    assert made.sent(Stop).keys() == {"w-5"}


def test_what_a_worker_says_of_its_failure_is_bounded(training: MakePlay) -> None:
    made = training(1)
    made.say(0, Failed(reason="no reason!", message="x" * 10**6, detail="y" * 10**6))
    failure = made.group.failure
    assert failure is not None
    assert failure.reason == "UserCodeFailed"
    assert len(failure.message) + len(failure.detail) < 10_000


def test_rank_0_carries_the_result_and_everybody_is_let_go(training: MakePlay) -> None:
    made = training(3)
    made.ready(3)
    for index in (1, 2):
        made.say(index, Finished())
    assert made.sent(Bye) == {}
    made.say(0, Finished(result={"steps": 100}))
    assert made.sent(Bye).keys() == {"w-0", "w-1", "w-2", "w-3"}
    assert (made.state, made.group.result) == ("finished", {"steps": 100})
    made.die(2)
    made.back(2, 1, "finishing", 100, 0, 1, 2)
    assert made.sent(Bye).keys() == {"w-2"}
    made.wait(100.0)
    assert made.actions[-1:] != [Bye()]


def test_a_finished_member_that_dies_is_not_missed(training: MakePlay) -> None:
    made = training(3)
    made.say(2, Finished())
    made.die(2)
    made.wait(10.0)
    assert made.generation() == (0, "")
    assert made.group.report().recoveries == {}
    made.say(0, Finished(result={}))
    assert made.state == "finished"


def test_rank_0_dying_before_its_result_leaves_it_to_the_next(training: MakePlay) -> None:
    made = training(3, min_workers=3)
    for index in (1, 2):
        made.say(index, Finished())
    made.die(0)
    assert made.generation() == (2, "12")
    made.ack(1, 2, step=100)
    assert made.gone() == {"w-1", "w-2"}, "the result may be written by fewer than the minimum"
    made.say(2, Finished())
    made.say(1, Finished(result={"steps": 100}))
    assert made.state == "finished"


def test_the_result_of_a_rank_0_that_was_taken_for_lost_counts(training: MakePlay) -> None:
    made = training(2)
    made.say(1, Finished())
    made.die(0)
    assert made.generation() == (2, "1")
    made.back(0, 1, "finishing", 100, 0, 1)
    made.say(0, Finished(result={"steps": 100}))
    assert made.sent(Bye).keys() == {"w-0", "w-1"}
    assert made.state == "finished"


def test_closing_stops_those_who_are_there(training: MakePlay) -> None:
    made = training(2)
    made.die(0)
    sends = made.group.close("Deleted", "the job was deleted")
    assert [send.worker for send in sends] == ["w-1"]


def test_strangers_and_stale_words_move_nothing(training: MakePlay, report: Any) -> None:
    made = training(2)
    before = made.group.report()
    made.say(9, Ack(generation=1, step=0, digest="d"))
    made.die(9)
    made.say(1, report(9))
    made.say(0, report(9, generation=3))
    assert made.group.report() == before
    assert made.actions == []
