"""The best and the Pareto front: by hand, and against trying all pairs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from playing import patiently

from shardwise.sweep import best, pareto

UP, DOWN = "Maximize", "Minimize"


def test_the_best_by_hand():
    assert best([(0.5,), None, (0.9,), (0.9,)], [UP]) == 2
    assert best([(0.5,), None, (0.9,), (0.5,)], [DOWN]) == 0
    assert best([None, None], [UP]) is None
    assert best([], [UP]) is None
    assert best([(float("nan"),), (0.1,)], [UP]) == 1
    # Among equals in the first objective, the second decides.
    assert best([(0.9, 30.0), (0.9, 20.0), (0.8, 1.0)], [UP, DOWN]) == 1


def test_without_objectives_nothing_is_best():
    assert best([(), ()], []) is None
    assert pareto([(), ()], []) == ()


def test_the_front_by_hand():
    #        accuracy, bytes
    rows = [(0.98, 400.0), (0.97, 100.0), (0.97, 200.0), None, (0.90, 50.0), (0.98, 400.0)]
    assert pareto(rows, [UP, DOWN]) == (0, 1, 4)
    assert pareto([(3.0,), (1.0,), (1.0,)], [DOWN]) == (1,)


values = st.sampled_from([0.0, 1.0, 2.0, 3.0]) | st.floats(-1e3, 1e3, width=32)


@patiently
@given(st.data(), st.lists(st.sampled_from([UP, DOWN]), min_size=1, max_size=4))
def test_as_all_pairs_say(data, directions):
    row = st.none() | st.tuples(*[values] * len(directions))
    rows = data.draw(st.lists(row, max_size=30))

    def as_good(one, other):
        return all(
            a >= b if direction == UP else a <= b
            for a, b, direction in zip(one, other, directions, strict=True)
        )

    front = [
        number
        for number, row in enumerate(rows)
        if row is not None
        and not any(
            other is not None and as_good(other, row) and (other != row or place < number)
            for place, other in enumerate(rows)
        )
    ]
    found = pareto(rows, directions)
    assert sorted(found) == front
    firsts = [rows[number][0] for number in found]
    assert firsts == sorted(firsts, reverse=directions[0] == UP)
    assert best(rows, directions) == (found[0] if found else None)


def test_what_is_not_finite_is_never_best():
    from shardwise.sweep.ranking import best, pareto

    for odd in (float("nan"), float("inf"), float("-inf")):
        for direction in ("Minimize", "Maximize"):
            assert best([[odd], [1.0]], [direction]) == 1
            assert pareto([[odd], [1.0]], [direction]) == (1,)
            assert best([[odd]], [direction]) is None
