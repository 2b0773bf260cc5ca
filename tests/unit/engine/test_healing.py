"""Who copies what: the pure plan, and what joining does with it."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import PLAN, ending, make_training, same, trained, undisturbed
from hypothesis import given
from hypothesis import strategies as st
from threads import together

from shardwise.engine.deal import deal, fresh
from shardwise.engine.flat import BLOCK, cuts
from shardwise.engine.group import Alone, GroupError, Interrupted, StateLost
from shardwise.engine.healing import Copy, Holding, Piece, Position, Range, plan_transfers
from shardwise.engine.layout import partitioned
from shardwise.engine.tree import Node, blocks, covering


def holding(step, *ranges, evaluated=0):
    pieces = tuple(Piece(step, start, stop) for start, stop in ranges)
    return Holding(Position(step, evaluated), pieces)


def everything(length, members):
    return ((Range(0, length),),) * members


def test_a_holding_survives_the_wire():
    told = Holding(Position(7, 4), (Piece(7, 0, 10), Piece(8, 0, 5)), "step 7", (Node(2, 1),))
    assert Holding.from_bytes(told.to_bytes()) == told


def test_laggards_copy_from_the_furthest_in_turn():
    ahead, behind = holding(5, (0, 8)), holding(3, (0, 8))
    plan = plan_transfers([behind, ahead, behind, ahead, behind], everything(8, 5))
    assert plan.position == (5, 0)
    assert plan.models == plan.histories == ((1, 0), (3, 2), (1, 4))
    assert {copy.target for copy in plan.copies} == {0, 2, 4}
    assert {copy.source for copy in plan.copies} == {1, 3}


def test_who_lacks_the_evaluation_only_copies_the_history_only():
    plan = plan_transfers([holding(4, (0, 8)), holding(4, (0, 8), evaluated=4)], everything(8, 2))
    assert plan.position == (4, 4)
    assert plan.histories == ((1, 0),)
    assert plan.models == plan.copies == ()


def test_at_step_0_nobody_has_to_hold_anything():
    plan = plan_transfers([holding(0), holding(0)], everything(8, 2))
    assert plan.models == plan.copies == ()


def test_an_update_that_was_not_committed_counts_where_a_peer_committed():
    pending = Holding(Position(4, 0), (Piece(4, 0, 6), Piece(5, 0, 6)))
    committed = holding(5, (6, 12))
    plan = plan_transfers([pending, committed], ((Range(0, 6),), (Range(6, 12),)))
    assert plan.position == (5, 0)
    assert plan.models == ((1, 0),)
    assert plan.copies == ()


def test_a_range_is_pieced_together():
    plan = plan_transfers(
        [holding(2, (0, 4)), holding(2, (4, 8)), holding(0)], ((), (), (Range(2, 7),))
    )
    assert plan.copies == (Copy(0, 2, 2, 4), Copy(1, 2, 4, 7))


def test_a_range_that_nobody_holds_is_lost():
    with pytest.raises(StateLost, match=r"elements 4 to 8 .* at step 2 .* none of the 2 workers"):
        plan_transfers([holding(2, (0, 4)), holding(0)], everything(8, 2))


def test_an_earlier_step_that_is_whole_is_better_than_a_later_one_that_is_not():
    late, whole = holding(6, (0, 4)), holding(5, (0, 8))
    plan = plan_transfers([late, whole, holding(0)], everything(8, 3))
    assert plan.position == (5, 0)
    assert plan.models == ((1, 0), (1, 2))


@given(st.data())
def test_every_need_is_met_and_nothing_comes_twice(data):
    members = data.draw(st.integers(1, 5))
    edges = sorted(data.draw(st.sets(st.integers(1, 19), max_size=4)) | {0, 20})
    pieces = [(a, b) for a, b in itertools.pairwise(edges)]
    held = [set(data.draw(st.sets(st.sampled_from(pieces)))) for _ in range(members)]
    for piece in pieces:
        held[data.draw(st.integers(0, members - 1))].add(piece)
    ranges = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda r: Range(*sorted(r)))
    needs = tuple(tuple(data.draw(st.lists(ranges, max_size=1))) for _ in range(members))
    plan = plan_transfers([holding(3, *sorted(own)) for own in held], needs)
    for rank in range(members):
        have = [e for a, b in held[rank] for e in range(a, b)]
        come = [e for c in plan.copies if c.target == rank for e in range(c.start, c.stop)]
        assert len(come) == len(set(come))
        assert not set(come) & set(have)
        assert set(come) | set(have) >= {e for a, b in needs[rank] for e in range(a, b)}
    for copy in plan.copies:
        assert any(a <= copy.start and copy.stop <= b for a, b in held[copy.source])


def subtree_sets(shards):
    nodes = [node for first in range(shards) for node in covering(range(first, shards))]
    return st.sets(st.sampled_from(nodes), max_size=3)


@given(st.data(), st.integers(1, 20))
def test_a_deal_tiles_the_tree_and_is_even(data, shards):
    members = data.draw(st.integers(1, min(6, shards)))
    held = [data.draw(subtree_sets(shards)) for _ in range(members)]
    shares = deal(shards, held)
    leaves = [s for share in shares for node in share.nodes for s in range(node.first, node.end)]
    assert sorted(leaves) == list(range(shards))
    lengths = [len(share.todo) for share in shares]
    if any(held):
        assert max(lengths) - min(lengths) <= 1
        assert all(set(share.kept) <= nodes for share, nodes in zip(shares, held, strict=True))
        done = {s for nodes in held for node in nodes for s in range(node.first, node.end)}
        assert sum(lengths) == shards - len(done)
    else:
        assert [share.todo for share in shares] == [tuple(b) for b in blocks(shards, members)]
        assert shares == fresh(shards, members)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12))
def test_each_part_has_one_copy_with_somebody_who_sends(blocks_of_parameters, beyond, members):
    width = blocks_of_parameters * BLOCK
    parts = cuts(width + beyond * BLOCK, members)
    layout = partitioned(width, parts, stateful=True)
    assert sum(own.stop - own.start for own in layout.own) == width
    for rank, own in enumerate(layout.own):
        keeper = layout.keeper(rank)
        if own.start == own.stop or members == 1:
            assert keeper is None
        else:
            assert keeper not in (None, rank)
            assert parts[keeper].start < parts[keeper].stop
            assert layout.copies.count(rank) == 1


def to_the_end(trainings):
    """Join one group and train; every member's ending."""

    def train(group):
        training = trainings[group.rank]
        training.join(group)
        while not training.done or training.evaluation_due:
            if training.evaluation_due:
                training.evaluate()
            else:
                training.step()
        return ending(training)

    return together(len(trainings), train)


@pytest.mark.parametrize("case", ["adamw, whole", "adamw, partitioned"])
def test_several_laggards_and_joiners_at_once(case):
    ahead, behind = trained(case, 2, 3), trained(case, 1, 1)
    for ending_of_one in to_the_end([behind[0], ahead[0], ahead[2], make_training(case), ahead[1]]):
        same(ending_of_one, undisturbed(case))


def test_two_neighbours_gone_is_state_lost_on_all_and_a_snapshot_helps():
    case = "adamw, partitioned"
    members = trained(case, 2, 4)
    parts = [member.snapshot() for member in members]
    left = [members[0], members[3]]

    def join(group):
        with pytest.raises(StateLost, match="held by none of the 2 workers"):
            left[group.rank].join(group)
        return True

    assert together(2, join) == [True, True]
    vectors = {name: torch.cat([part.vectors[name] for part in parts]) for name in parts[0].vectors}
    width = parts[0].length
    snapshot = type(parts[0])(
        step=2,
        evaluated=2,
        length=width,
        part=slice(0, width),
        vectors=vectors,
        tensors=parts[0].tensors,
        history=parts[0].history,
    )
    for training in left:
        training.restore(snapshot)
    for one in to_the_end(left):
        same(one, undisturbed(case))


def test_two_that_are_not_neighbours_may_go():
    case = "adamw, partitioned"
    members = trained(case, 2, 4)
    for one in to_the_end([members[1], members[3]]):
        same(one, undisturbed(case))


@pytest.mark.parametrize("case", ["adamw, whole", "adamw, partitioned"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_snapshot_is_a_copy_and_goes_on_to_the_same_bytes(case, size):
    members = trained(case, 1, size)
    parts = [member.snapshot() for member in members]
    for one in to_the_end(members):
        same(one, undisturbed(case))
    assert [p.part.start for p in parts[1:]] == [p.part.stop for p in parts[:-1]]
    if size == 1:
        fresh_one = make_training(case)
        fresh_one.restore(parts[0])
        assert (fresh_one.steps_done, fresh_one.evaluated) == (1, 0)
        same(to_the_end([fresh_one])[0], undisturbed(case))
    else:
        with pytest.raises(ValueError, match="give a whole snapshot of this task"):
            make_training(case).restore(parts[1])


def test_a_snapshot_of_another_optimizer_is_an_error():
    with pytest.raises(ValueError, match=r"has the vectors .* give a snapshot of this task"):
        make_training("adamw, whole").restore(trained("sgd, whole", 1, 1)[0].snapshot())


def test_only_lost_shards_are_computed_again():
    """One of two is cut off before its third shard; the next group computes what is left."""
    members = [make_training("sgd, whole") for _ in range(2)]
    beats = {"left": 3}

    def stop(activity):
        if activity == "computing":
            beats["left"] -= 1
            if not beats["left"]:
                raise Interrupted("a newer generation")

    computed = []

    def train(group):
        training = members[group.rank]
        training.join(group)
        if group.rank == 0:
            training.beat = stop
        else:  # the other does not get as far as its exchange
            training.beat = lambda activity: fail() if activity == "exchanging" else None
        with pytest.raises(GroupError):
            training.step()
        training.beat = lambda activity: None

    def fail():
        raise Interrupted("a newer generation")

    together(2, train)

    def again(group):
        members[group.rank].join(group)
        computed.append(members[group.rank].step().computed_shards)

    together(2, again)
    shares = [len(block) for block in blocks(PLAN.shards, 2)]
    assert sum(computed) == PLAN.shards - 2 - shares[1]
    for one in to_the_end(members):
        same(one, undisturbed("sgd, whole"))


def test_an_interruption_alone_goes_on_where_it_was():
    training = make_training("sgd, whole")
    beats = iter(range(100))

    def beat(activity):
        if next(beats) == 3:
            raise Interrupted("a newer generation")

    training.beat = beat
    with pytest.raises(Interrupted):
        training.step()
    assert training.steps_done == 0
    training.join(Alone())
    assert training.step().computed_shards == PLAN.shards - 3


@pytest.mark.parametrize("raisers", [(), (0,), (2,), (0, 1, 2)])
def test_all_see_the_flag_at_the_step_where_some_raise_it(raisers):
    case = "sgd, whole"
    trainings = [make_training(case) for _ in range(3)]

    def train(group):
        training = trainings[group.rank]
        training.join(group)
        seen = [training.step(flag=step == 1 and group.rank in raisers).flag for step in range(3)]
        training.evaluate()
        return seen, training

    for seen, training in together(3, train):
        assert seen == [False, bool(raisers), False]
        assert training.digest() == trainings[0].digest()
    assert all(
        torch.equal(tensor, undisturbed(case)[0][name])
        for name, tensor in trainings[0].model.named_tensors()
    )


def test_two_kinds_of_signs_do_not_mix():
    trainings = [make_training("sgd, whole") for _ in range(3)]

    def train(group):
        training = trainings[group.rank]
        training.join(group)
        asks = [training.step(ask=group.rank == 1), training.step(flag=group.rank == 2, ask=True)]
        return [(result.flag, result.asked) for result in asks]

    assert together(3, train) == [[(False, True), (True, True)]] * 3


def test_the_flag_of_a_broken_attempt_is_not_kept():
    training = make_training("sgd, whole")
    beats = iter(range(100))
    training.beat = lambda activity: fail() if next(beats) == 3 else None

    def fail():
        raise Interrupted("a newer generation")

    with pytest.raises(Interrupted):
        training.step(flag=True)
    training.join(Alone())
    assert not training.step().flag


def test_more_members_than_shards_is_an_error():
    with pytest.raises(ValueError, match="6 workers cannot share 5 shards"):
        together(6, lambda group: make_training("sgd, whole").join(group))


def test_the_gradients_fingerprint_changes_nothing_and_tells_models_apart():
    one, same_one = make_training("sgd, whole"), make_training("sgd, whole")
    before = one.digest()
    found = one.gradient_fingerprint()
    assert found == same_one.gradient_fingerprint()
    assert one.digest() == before
    with torch.no_grad():
        same_one.model.parameters[5] += 1e-3
    assert found != same_one.gradient_fingerprint()
