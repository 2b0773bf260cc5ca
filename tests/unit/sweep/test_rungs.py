"""ASHA's promotions: against an example worked by hand, and against the rule written plainly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from playing import patiently

from shardwise.sweep.rungs import Rungs


class Plain:
    """Algorithm 2, `get_job`, as it stands in the paper: every rung sorted anew each time."""

    def __init__(self, count, factor):
        self.factor = factor
        self.results = [[] for _ in range(count)]
        self.promoted = [set() for _ in range(count)]

    def add(self, rung, trial, cost):
        if rung < len(self.results):
            self.results[rung].append((cost is None, cost or 0.0, trial))

    def promote(self):
        for rung in reversed(range(len(self.results))):
            ranked = sorted(self.results[rung])
            for failed, _, trial in ranked[: len(ranked) // self.factor]:
                if not failed and trial not in self.promoted[rung]:
                    self.promoted[rung].add(trial)
                    return trial, rung + 1
        return None


def test_the_best_third_is_promoted_when_a_third_is_there():
    rungs = Rungs(1, 3, 6)
    rungs.add(0, 0, 0.5)
    rungs.add(0, 1, 0.4)
    assert rungs.promote() is None
    rungs.add(0, 2, 0.6)
    assert rungs.promote() == (1, 1)
    assert rungs.promote() is None
    # The fourth is the best of four, so it is the top third, though that had been used up.
    rungs.add(0, 3, 0.3)
    assert rungs.promote() == (3, 1)
    rungs.add(0, 4, 0.45)
    assert rungs.promote() is None
    # Of six the two best: both were promoted.
    rungs.add(0, 5, 0.7)
    assert rungs.promote() is None
    assert rungs.stopped == {0, 2, 4, 5}


def test_the_highest_rung_comes_first():
    rungs = Rungs(2, 2, 9)
    for trial, cost in enumerate([4.0, 3.0, 2.0, 1.0]):
        rungs.add(0, trial, cost)
    assert [rungs.promote(), rungs.promote(), rungs.promote()] == [(3, 1), (2, 1), None]
    rungs.add(1, 2, 5.0)
    rungs.add(1, 3, 6.0)
    rungs.add(0, 4, 0.5)
    assert [rungs.promote(), rungs.promote(), rungs.promote()] == [(2, 2), (4, 1), None]


def test_failures_rank_last_and_are_never_promoted():
    rungs = Rungs(1, 2, 6)
    for trial in range(4):
        rungs.add(0, trial, None)
    assert rungs.promote() is None
    rungs.add(0, 4, 9.0)
    assert rungs.promote() == (4, 1)
    rungs.add(0, 5, 10.0)
    assert rungs.promote() == (5, 1)
    assert rungs.promote() is None
    assert rungs.stopped == set()


def test_of_equals_the_lower_trial_is_promoted():
    rungs = Rungs(1, 2, 4)
    for trial in (2, 0, 1, 3):
        rungs.add(0, trial, 1.0)
    assert [rungs.promote(), rungs.promote(), rungs.promote()] == [(0, 1), (1, 1), None]
    assert rungs.stopped == {2, 3}


def test_a_trial_is_stopped_as_soon_as_it_cannot_come_into_the_top():
    rungs = Rungs(1, 3, 9)  # Three of the nine at most.
    for trial in range(3):
        rungs.add(0, trial, float(trial))
    assert rungs.stopped == set()
    rungs.add(0, 3, 3.0)
    assert rungs.stopped == {3}
    rungs.add(0, 4, -1.0)
    assert rungs.stopped == {2, 3}


def test_at_a_higher_rung_as_many_are_expected_as_can_still_come():
    rungs = Rungs(2, 2, 4)
    for trial in range(4):
        rungs.add(0, trial, float(trial))
    assert [rungs.promote(), rungs.promote()] == [(0, 1), (1, 1)]
    rungs.add(1, 1, 1.0)
    assert rungs.stopped == {2, 3}
    # Two come to the second rung, and one of them goes on.
    rungs.add(1, 0, 2.0)
    assert rungs.stopped == {0, 2, 3}
    assert rungs.promote() == (1, 2)


costs = st.none() | st.sampled_from([0.0, 1.0, 2.0]) | st.floats(-1e6, 1e6)


@patiently
@given(
    st.integers(1, 40),
    st.integers(1, 3),
    st.integers(2, 4),
    st.randoms(use_true_random=False),
    st.data(),
)
def test_as_the_plain_rule(trials, count, factor, chance, data):
    rungs, plain = Rungs(count, factor, trials), Plain(count, factor)
    under_way = [(trial, 0) for trial in range(trials)]
    stopped: set[int] = set()
    promoted_at: set[tuple[int, int]] = set()
    while under_way:
        trial, rung = under_way.pop(chance.randrange(len(under_way)))
        cost = data.draw(costs)
        rungs.add(rung, trial, cost)
        plain.add(rung, trial, cost)
        assert stopped <= rungs.stopped
        stopped |= rungs.stopped
        while True:
            found = rungs.promote()
            assert found == plain.promote()
            if found is None:
                break
            assert found[0] not in stopped
            promoted_at.add(found)
            under_way.append(found)
    for trial in stopped:
        rung = max((r for t, r in promoted_at if t == trial), default=0)
        assert trial not in plain.promoted[rung]
