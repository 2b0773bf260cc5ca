"""The group's rules one by one: forming, faults, losses, ends, refusals, and adoption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from shardwise.coordinator.group import REGROUP_ATTEMPTS, REGROUP_SECONDS, Group, Send
from shardwise.coordinator.protocol import (
    Ack,
    Bye,
    Failed,
    Fault,
    Finished,
    Generation,
    Go,
    Hello,
    KeyValue,
    Member,
    Refusal,
    Refused,
    StepReport,
    Stop,
    Welcome,
)
from shardwise.coordinator.report import Assignment

MakeHello = Callable[..., Hello]
MakeGroup = Callable[..., Group]
Kind = TypeVar("Kind")
GRACE = 10.0


@pytest.fixture
def group(assignment: Callable[..., Assignment]) -> MakeGroup:
    def make(workers: int, **changes: Any) -> Group:
        return Group(assignment(workers, **changes), GRACE)

    return make


@pytest.fixture
def training(group: MakeGroup, hello: MakeHello) -> MakeGroup:
    """A group that was sent its first go at time 0."""

    def make(workers: int) -> Group:
        made = group(workers)
        for index in range(workers):
            made.joined(hello(index), 0.0)
        for index in range(workers):
            made.received(f"w-{index}", Ack(generation=1, step=0, digest="d"), 0.0)
        assert made.report().state == "training"
        return made

    return make


def of(sends: list[Send], kind: type[Kind]) -> dict[str, Kind]:
    """The messages of one kind, by receiver."""
    return {send.worker: send.message for send in sends if isinstance(send.message, kind)}


def report(step: int, generation: int = 1) -> StepReport:
    return StepReport(
        generation=generation,
        step=step,
        total_steps=100,
        epoch=0,
        loss=0.5,
        samples_per_second=10.0,
        metrics={},
    )


def test_a_group_forms_in_two_phases(group: MakeGroup, hello: MakeHello) -> None:
    made = group(2)
    assert set(of(made.joined(hello(1), 0.0), Welcome)) == {"w-1"}
    assert made.report().state == "waiting"
    issued = of(made.joined(hello(0), 0.0), Generation)
    members = (Member(worker="w-0", index=0, step=0), Member(worker="w-1", index=1, step=0))
    assert issued == dict.fromkeys(["w-0", "w-1"], Generation(generation=1, members=members))
    assert made.received("w-1", Ack(generation=1, step=0, digest="d"), 0.0) == []
    assert made.report().state == "forming"
    went = of(made.received("w-0", Ack(generation=1, step=0, digest="d"), 0.0), Go)
    assert went == dict.fromkeys(["w-0", "w-1"], Go(generation=1, members=members, steps=(0, 0)))
    assert made.report().state == "training"
    assert made.report().connected == ("w-0", "w-1")


def test_generations_begin_above_the_floor(group: MakeGroup, hello: MakeHello) -> None:
    sends = group(1, generation_floor=7).joined(hello(0), 0.0)
    assert of(sends, Generation)["w-0"].generation == 8


def test_keys_of_the_current_generation_go_to_every_member(training: MakeGroup) -> None:
    made = training(2)
    current = KeyValue(generation=1, key="k", value=b"v")
    assert set(of(made.received("w-0", current, 0.0), KeyValue)) == {"w-0", "w-1"}
    assert made.received("w-0", KeyValue(generation=2, key="k", value=b"v"), 0.0) == []


def test_a_fault_gives_the_same_members_a_new_generation(training: MakeGroup) -> None:
    made = training(2)
    made.received("w-1", Fault(generation=1, message="reset"), 1.0)
    made.received("w-0", Fault(generation=1, message="reset"), 1.01)
    assert made.report().state == "forming"
    assert made.next_deadline() == pytest.approx(1.0 + REGROUP_SECONDS)
    assert made.tick(1.01) == []
    issued = of(made.tick(1.0 + REGROUP_SECONDS), Generation)
    assert set(issued) == {"w-0", "w-1"}
    assert issued["w-0"].generation == 2
    assert made.received("w-0", Fault(generation=1, message="late"), 2.0) == []
    assert made.next_deadline() is None
    made.received("w-0", Ack(generation=2, step=60, digest="a"), 2.0)
    went = of(made.received("w-1", Ack(generation=2, step=61, digest="b"), 2.0), Go)
    assert went["w-0"].steps == (60, 61)


def test_faults_without_end_end_the_task(training: MakeGroup) -> None:
    made = training(2)
    now = 0.0
    for generation in range(1, REGROUP_ATTEMPTS + 1):
        assert made.report().state == "training"
        made.received("w-1", Fault(generation=generation, message="no route\nto w-0"), now)
        now = made.next_deadline() or now
        sends = made.tick(now)
        for worker in ("w-0", "w-1"):
            made.received(worker, Ack(generation=generation + 1, step=0, digest="d"), now)
    assert made.failure is not None
    assert made.failure.reason == "WorkerLost"
    assert "w-1: no route to w-0" in made.failure.message
    assert set(of(sends, Stop)) == {"w-0", "w-1"}


def test_steps_between_faults_make_them_count_anew(training: MakeGroup) -> None:
    made = training(1)
    for generation in range(1, 5 * REGROUP_ATTEMPTS):
        made.received("w-0", Fault(generation=generation, message="x"), float(generation))
        made.tick(generation + 0.5)
        made.received("w-0", Ack(generation=generation + 1, step=generation, digest="d"), 0.0)
    assert made.report().state == "training"


def test_a_reconnect_while_forming_makes_a_new_generation(
    group: MakeGroup, hello: MakeHello
) -> None:
    made = group(2)
    made.joined(hello(0), 0.0)
    made.joined(hello(1), 0.0)
    made.received("w-1", Ack(generation=1, step=0, digest="d"), 0.0)
    made.disconnected("w-1", 0.1)
    assert made.received("w-0", Ack(generation=1, step=0, digest="d"), 0.1) == []
    made.joined(hello(1, generation=1, phase="forming"), 0.2)
    assert made.received("w-1", Ack(generation=1, step=0, digest="d"), 0.2) == []
    assert of(made.tick(0.2 + REGROUP_SECONDS), Generation)["w-1"].generation == 2


def test_a_reconnect_while_training_disturbs_nobody(training: MakeGroup, hello: MakeHello) -> None:
    made = training(2)
    made.disconnected("w-1", 1.0)
    assert made.next_deadline() == 1.0 + GRACE
    sends = made.joined(hello(1, generation=1, phase="training", step=5), 2.0)
    assert [type(send.message) for send in sends] == [Welcome]
    assert made.report().state == "training"
    assert made.next_deadline() is None


def test_a_lost_worker_ends_the_task_after_the_grace_period(
    training: MakeGroup, hello: MakeHello
) -> None:
    made = training(3)
    made.received("w-0", report(42), 1.0)
    made.disconnected("w-1", 2.0)
    made.received("w-0", Fault(generation=1, message="peer closed"), 2.0)
    assert made.tick(2.0 + GRACE / 2) == []
    sends = made.tick(2.0 + GRACE)
    assert set(of(sends, Stop)) == {"w-0", "w-2"}
    failure = made.report().failure
    assert failure is not None
    assert (failure.reason, failure.worker) == ("WorkerLost", "w-1")
    for part in ("w-1", "step 42", "10 s", "start the job again"):
        assert part in failure.message
    late = made.joined(hello(1, generation=1, phase="training"), 20.0)
    assert of(late, Stop)["w-1"].reason == "WorkerLost"


def test_before_the_group_forms_workers_come_and_go(group: MakeGroup, hello: MakeHello) -> None:
    made = group(2)
    made.joined(hello(1), 0.0)
    made.disconnected("w-1", 1.0)
    assert made.next_deadline() is None
    made.joined(hello(1, worker="other"), 2.0)
    assert made.report().connected == ("other",)


def test_failing_user_code_ends_the_task_at_once(training: MakeGroup) -> None:
    made = training(2)
    message = Failed(reason="UserCodeFailed", message="ValueError:\n no", detail="Traceback")
    sends = made.received("w-1", message, 1.0)
    assert of(sends, Bye).keys() == {"w-1"}
    assert of(sends, Stop).keys() == {"w-0"}
    failure = made.report().failure
    assert failure is not None
    assert failure.message == "ValueError: no"
    assert (failure.reason, failure.detail, failure.worker) == (
        "UserCodeFailed",
        "Traceback",
        "w-1",
    )
    again = made.received("w-0", Failed(reason="Other", message="me too"), 1.1)
    assert of(again, Bye).keys() == {"w-0"}
    assert made.failure == failure


def test_what_a_worker_says_of_its_failure_is_bounded(training: MakeGroup) -> None:
    made = training(1)
    made.received("w-0", Failed(reason="no reason!", message="x" * 10**6, detail="y" * 10**6), 1.0)
    assert made.failure is not None
    assert made.failure.reason == "UserCodeFailed"
    assert len(made.failure.message) + len(made.failure.detail) < 10_000


def test_rank_0_carries_the_result_and_ends_the_task(training: MakeGroup, hello: MakeHello) -> None:
    made = training(3)
    assert of(made.received("w-1", Finished(), 1.0), Bye).keys() == {"w-1"}
    made.disconnected("w-1", 1.1)
    assert made.report().state == "training"
    assert made.next_deadline() is None
    result = {"steps": 100}
    assert of(made.received("w-0", Finished(result=result), 2.0), Bye).keys() == {"w-0"}
    assert made.report().state == "finished"
    assert made.report().result == result
    # The end-of-job race: the last member is a moment late, and its connection breaks.
    made.disconnected("w-2", 2.0)
    sends = made.joined(hello(2, generation=1, phase="training", step=100), 2.1)
    assert of(sends, Stop) == {}
    assert of(made.received("w-2", Finished(), 2.2), Bye).keys() == {"w-2"}
    assert made.tick(100.0) == []
    assert of(made.joined(hello(2, worker="late"), 3.0), Stop)["late"].reason == "Completed"


def test_a_fault_after_a_member_has_finished_is_a_loss(training: MakeGroup) -> None:
    made = training(2)
    made.received("w-1", Finished(), 1.0)
    made.disconnected("w-1", 1.0)
    made.received("w-0", Fault(generation=1, message="closed"), 1.0)
    assert of(made.tick(1.0 + REGROUP_SECONDS), Stop).keys() == {"w-0"}
    assert made.failure is not None
    assert "another had finished" in made.failure.message


def test_a_member_that_finished_while_a_generation_forms_is_a_loss(training: MakeGroup) -> None:
    made = training(2)
    made.received("w-0", Fault(generation=1, message="closed"), 1.0)
    assert set(of(made.tick(1.1), Generation)) == {"w-0", "w-1"}
    made.received("w-1", Finished(), 1.2)
    deadline = made.next_deadline()
    assert deadline is not None
    assert of(made.tick(deadline), Stop).keys() == {"w-0"}


def test_members_that_finished_may_go_when_they_come_back(
    training: MakeGroup, hello: MakeHello
) -> None:
    made = training(3)
    for index in (0, 1):
        made.disconnected(f"w-{index}", 1.0)
    sends = made.joined(hello(1, generation=1, phase="finished", step=100), 1.5)
    assert of(sends, Bye).keys() == {"w-1"}
    # Rank 0 is let go once its result is here.
    sends = made.joined(hello(0, generation=1, phase="finished", step=100), 1.5)
    assert of(sends, Bye) == {}
    sends = made.received("w-0", Finished(result={"steps": 100}), 1.6)
    assert of(sends, Bye).keys() == {"w-0"}
    assert (made.report().state, made.result) == ("finished", {"steps": 100})
    again = made.joined(hello(0, generation=1, phase="finished", step=100), 2.0)
    assert of(again, Bye).keys() == {"w-0"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"index": 0, "worker": "other"}, "index 0 is taken by worker w-0"),
        ({"index": 2, "worker": "other"}, "index 2 is not below the 2 workers"),
        ({"index": 1, "worker": "w-0"}, "w-0 is index 0 here, not 1"),
        (
            {"index": 1, "worker": "w-1", "fingerprint": {"torch": "2.12.0", "threads": 1}},
            "torch is 2.12.0 on w-1 but 2.13.0 on w-0",
        ),
        (
            {"index": 1, "worker": "w-1", "fingerprint": {"torch": "2.13.0"}},
            "threads is unset on w-1 but 1 on w-0",
        ),
    ],
)
def test_joiners_that_do_not_fit_are_refused(
    group: MakeGroup, hello: MakeHello, changes: dict[str, Any], problem: str
) -> None:
    made = group(2)
    made.joined(hello(0), 0.0)
    with pytest.raises(Refused) as caught:
        made.joined(hello(**changes), 1.0)
    assert caught.value.reason == "RefusedWorker"
    assert problem in caught.value.message
    assert made.report().connected == ("w-0",)


def test_a_running_group_takes_in_nobody(training: MakeGroup, hello: MakeHello) -> None:
    made = training(2)
    with pytest.raises(Refused, match="index 1 is taken by worker w-1"):
        made.joined(hello(1, worker="other"), 1.0)
    # A restarted process of a member: what it trained is gone, and nothing may begin anew.
    made.disconnected("w-1", 1.0)
    with pytest.raises(Refused, match="without the training's state"):
        made.joined(hello(1), 1.0)
    made.tick(1.0 + GRACE)
    assert made.report().state == "failed"


def test_different_states_at_one_step_are_refused(group: MakeGroup, hello: MakeHello) -> None:
    made = group(2)
    made.joined(hello(0), 0.0)
    made.joined(hello(1), 0.0)
    made.received("w-0", Ack(generation=1, step=0, digest="aaaa"), 0.0)
    sends = made.received("w-1", Ack(generation=1, step=0, digest="bbbb"), 0.0)
    assert of(sends, Stop).keys() == {"w-0", "w-1"}
    assert made.failure is not None
    assert made.failure.reason == "RefusedWorker"
    for part in ("w-0", "w-1", "aaaa", "bbbb", "not deterministic"):
        assert part in made.failure.message


def test_a_restarted_coordinator_adopts_a_running_group(group: MakeGroup, hello: MakeHello) -> None:
    made = group(2)
    made.joined(hello(0, generation=5, phase="training", step=50), 0.0)
    made.received("w-0", report(51, generation=5), 0.5)
    assert made.report().state == "waiting"
    assert made.next_deadline() is None
    sends = made.joined(hello(1, generation=5, phase="training", step=52), 1.0)
    assert [type(send.message) for send in sends] == [Welcome]
    assert (made.state, made.generation) == ("training", 5)
    progress = made.report().progress
    assert progress is not None
    assert progress.step == 51


@pytest.mark.parametrize(
    "other",
    [{"generation": 5, "phase": "forming"}, {"generation": 4, "phase": "training"}],
)
def test_a_group_that_was_forming_gets_a_generation_above_all(
    group: MakeGroup, hello: MakeHello, other: dict[str, Any]
) -> None:
    made = group(2)
    made.joined(hello(0, generation=5, phase="training", step=50), 0.0)
    issued = of(made.joined(hello(1, step=50, **other), 0.0), Generation)
    assert issued["w-0"].generation == 6
    assert [member.step for member in issued["w-0"].members] == [50, 50]


def test_a_broken_group_whose_member_never_comes_back_fails(
    group: MakeGroup, hello: MakeHello
) -> None:
    made = group(2)
    made.joined(hello(0, generation=5, phase="training", step=50), 0.0)
    made.received("w-0", Fault(generation=5, message="closed"), 1.0)
    deadline = made.next_deadline()
    assert deadline is not None
    assert of(made.tick(deadline), Stop).keys() == {"w-0"}
    assert made.failure is not None
    assert "index 1" in made.failure.message


def test_a_worker_without_state_is_turned_away_by_one_that_trains(
    group: MakeGroup, hello: MakeHello
) -> None:
    made = group(2)
    made.joined(hello(1), 0.0)
    sends = made.joined(hello(0, generation=5, phase="training", step=50), 0.0)
    assert of(sends, Refusal).keys() == {"w-1"}
    assert of(sends, Generation) == {}
    assert made.report().connected == ("w-0",)


def test_closing_stops_those_who_are_there(training: MakeGroup) -> None:
    made = training(2)
    made.disconnected("w-0", 0.0)
    assert of(made.close("Deleted", "the job was deleted"), Stop).keys() == {"w-1"}


def test_strangers_and_stale_words_move_nothing(training: MakeGroup) -> None:
    made = training(2)
    before = made.report()
    assert made.received("stranger", Ack(generation=1, step=0, digest="d"), 0.0) == []
    assert made.disconnected("stranger", 0.0) == []
    made.received("w-1", report(9), 0.0)
    made.received("w-0", report(9, generation=3), 0.0)
    assert made.report() == before
