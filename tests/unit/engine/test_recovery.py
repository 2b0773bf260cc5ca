"""Whatever breaks, and wherever: the survivors end in the undisturbed run's bytes."""

from __future__ import annotations

import pytest
from cases import CASES, ending, make_training, same, trained, undisturbed
from faulty import Cluster, Member
from hypothesis import given, settings
from hypothesis import strategies as st


def run(case, *faults, joins_at=()):
    """Train with members that have these faults; check all that live; the members."""
    members = [
        Member(index, make_training(case), by_point) for index, by_point in enumerate(faults)
    ]
    members += [
        Member(len(members) + number, make_training(case), {}, joins_at=generation)
        for number, generation in enumerate(joins_at)
    ]
    Cluster(members, ending).run()
    living = [member for member in members if member.state == "finishing"]
    assert living
    for member in living:
        same(member.outcome, undisturbed(case))
    return members


def test_the_points_of_a_run_are_the_same_each_time():
    counts = {tuple(m.points for m in run("adamw, partitioned", {}, {}, {})) for _ in range(2)}
    assert len(counts) == 1
    assert min(counts.pop()) > 50


@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize("case", CASES)
def test_a_break_at_any_point_changes_nothing(case, quarter):
    """Each point of a run in turn, on a member in turn; killed and cut off in turn."""
    points = max(member.points for member in run(case, {}, {}, {}))
    for point in range(1 + quarter, points + 1, 4):
        faults = [{}, {}, {}]
        faults[point % 3] = {point: ("kill", "cut")[point // 3 % 2]}
        run(case, *faults, joins_at=[2] if point % 2 else [])


schedules = st.lists(
    st.dictionaries(st.integers(1, 150), st.sampled_from(["kill", "cut", "cut"]), max_size=4),
    min_size=1,
    max_size=3,
)


@settings(max_examples=30, deadline=None)
@given(
    case=st.sampled_from([name for name in CASES if name.endswith("whole")]),
    faults=schedules,
    joins_at=st.lists(st.integers(2, 6), max_size=1),
)
def test_any_schedule_of_breaks_changes_nothing(case, faults, joins_at):
    """With whole state on each member, the last one alive is enough."""
    run(case, {}, *faults, joins_at=joins_at)


@settings(max_examples=30, deadline=None)
@given(
    case=st.sampled_from([name for name in CASES if name.endswith("partitioned")]),
    cuts=st.lists(st.sets(st.integers(1, 150), max_size=4), min_size=2, max_size=3),
    killed=st.integers(1, 150),
    joins_at=st.lists(st.integers(2, 6), max_size=1),
)
def test_any_schedule_with_one_death_loses_no_part(case, cuts, killed, joins_at):
    """With partitioned state, one death and any number of cuts, on any members."""
    faults = [dict.fromkeys(points, "cut") for points in cuts]
    run(case, {killed: "kill"}, *faults, joins_at=joins_at)


@settings(max_examples=50, deadline=None)
@given(
    order=st.permutations(range(4)),
    joiner=st.booleans(),
    killed=st.integers(1, 80),
    cut=st.integers(1, 80),
)
def test_a_death_beside_a_cut_loses_no_part(order, joiner, killed, cut):
    """While a group re-cuts the optimizer's state, and in the step after that."""
    case = "adamw, partitioned"
    trainings = [*trained(case, 1, 3), *([make_training(case)] if joiner else [])]
    faults = [{killed: "kill"}, {cut: "cut"}, {}, {}]
    order = [place for place in order if place < len(trainings)]
    members = [Member(n, trainings[n], faults[order.index(n)]) for n in range(len(trainings))]
    Cluster(members, ending).run()
    for member in members:
        if member.state == "finishing":
            same(member.outcome, undisturbed(case))


@pytest.mark.parametrize("victim", range(3))
def test_a_step_that_one_member_committed_survives_the_death_of_another(victim):
    """The split commit: a dies after it sent its part, the keeper of its copy is cut off as it
    waits, and the third has all it needs: the keeper's pending update is all there is of a's."""
    case = "adamw, partitioned"
    ends = [member.ends[0] for member in run(case, {}, {}, {})]
    keeper, split = (victim + 1) % 3, 0
    for killed in range(0, 12, 3):
        for cut in range(0, 12, 2):
            faults = [{}, {}, {}]
            faults[victim] = {ends[victim] - killed: "kill"}
            faults[keeper] = {ends[keeper] - cut: "cut"}
            members = run(case, *faults)
            split += len(members[keeper].computed) < len(members[victim - 1].computed)
    assert split > 0
