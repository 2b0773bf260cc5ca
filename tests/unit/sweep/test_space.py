"""The values of a sweep's parameters: by hand, and whatever the space."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import HIDDEN, MOMENTUM, patiently

from shardwise.sweep.space import Space, uniform


def ranged(name="x", **range_):
    return {"name": name, "range": range_}


def grid(*parameters):
    return list(Space(parameters).grid())


def choices(parameter):
    return [assigned[parameter["name"]] for assigned in grid(parameter)]


def test_a_grid_by_hand():
    assert grid(HIDDEN, MOMENTUM, {"name": "bits", "values": [8]}) == [
        {"hidden": 32, "bits": 8},
        {"hidden": 64, "momentum": "0", "bits": 8},
        {"hidden": 64, "momentum": "0.9", "bits": 8},
        {"hidden": 128, "momentum": "0", "bits": 8},
        {"hidden": 128, "momentum": "0.9", "bits": 8},
    ]


def test_what_depends_on_a_parameter_left_out_is_left_out():
    nesterov = {
        "name": "nesterov",
        "values": [0, 1],
        "when": {"parameter": "momentum", "values": ["0.9"]},
    }
    found = grid({"name": "hidden", "values": [32, 64]}, MOMENTUM, nesterov)
    assert found == [
        {"hidden": 32},
        {"hidden": 64, "momentum": "0"},
        {"hidden": 64, "momentum": "0.9", "nesterov": 0},
        {"hidden": 64, "momentum": "0.9", "nesterov": 1},
    ]


@pytest.mark.parametrize(
    ("range_", "expected"),
    [
        (dict(type="Int", min=3, max=6), [3, 4, 5, 6]),
        (dict(type="Int", min="3", max="6"), [3, 4, 5, 6]),
        (dict(type="Int", min=0, max=100, points=3), [0, 50, 100]),
        (dict(type="Int", min=1, max=3, points=9), [1, 2, 3]),
        (dict(type="Int", min=8, max=512, scale="Log", points=4), [8, 32, 128, 512]),
        (dict(type="Float", min="0.1", max="0.5", points=5), ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        (
            dict(type="Float", min="0.001", max="1", scale="Log", points=4),
            ["0.001", "0.01", "0.1", "1.0"],
        ),
        (
            dict(type="Float", min="1e-7", max="1e-5", scale="Log", points=3),
            ["1e-07", "1e-06", "1e-05"],
        ),
        (dict(type="Float", min="-1", max="1", points=2), ["-1.0", "1.0"]),
    ],
)
def test_points_of_a_range(range_, expected):
    assert choices(ranged(**range_)) == expected


def test_a_field_of_the_spec_is_written_as_the_spec_wants_it():
    field = ranged(type="Float", min="0", max="1", points=7) | {"field": "compression.p.sparsity"}
    assert choices(field)[:3] == ["0", "0.166666667", "0.333333333"]
    assert choices(field)[-1] == "1"


def test_a_grid_over_floats_needs_points():
    with pytest.raises(ValueError, match="parameter x: a Grid over a Float range needs its points"):
        grid(ranged(type="Float", min="0", max="1"))


def test_random_values_are_what_they_were():
    # Another value here means that all Random sweeps change.
    space = Space(
        [HIDDEN, MOMENTUM, ranged("rate", type="Float", min="0.001", max="1", scale="Log")]
    )
    assert uniform(0, 0, "hidden") == 0.2727649612183365
    assert [space.random(0, trial) for trial in range(3)] == [
        {"hidden": 32, "rate": "0.012509924609401717"},
        {"hidden": 64, "momentum": "0.9", "rate": "0.0179523650550059"},
        {"hidden": 32, "rate": "0.009006551665814103"},
    ]


numbers = st.decimals(
    min_value=Decimal("1e-6"), max_value=Decimal("1e6"), allow_nan=False, places=6
)
bounds = st.tuples(numbers, numbers).map(sorted).filter(lambda pair: 0 < pair[0] < pair[1])
scales = st.sampled_from(["Linear", "Log"])
trials = st.integers(0, 10_000)
seeds = st.integers(0, 2**32 - 1)


@patiently
@given(bounds, scales, trials, seeds, st.booleans())
def test_floats_stay_within_their_bounds(ends, scale, trial, seed, fixed):
    parameter = ranged(type="Float", min=str(ends[0]), max=str(ends[1]), scale=scale)
    if fixed:
        parameter["field"] = "compression.p.sparsity"
    value = Space([parameter]).random(seed, trial)["x"]
    assert isinstance(value, str)
    assert float(ends[0]) <= float(value) <= float(ends[1])
    if fixed:
        assert "e" not in value
        assert len(value.partition(".")[2]) <= 9


@patiently
@given(st.integers(1, 2**53 - 1), st.integers(0, 2**53 - 1), scales, trials, seeds)
def test_integers_stay_within_their_bounds(low, width, scale, trial, seed):
    high = min(low + width, 2**53 - 1)
    parameter = ranged(type="Int", min=low, max=high, scale=scale)
    value = Space([parameter]).random(seed, trial)["x"]
    assert isinstance(value, int)
    assert low <= value <= high


@patiently
@given(bounds, scales, st.integers(2, 50), st.sampled_from(["Int", "Float"]))
def test_points_ascend_between_the_bounds(ends, scale, points, kind):
    low, high = (math.floor(ends[0]) + 1, math.ceil(ends[1]) + 1) if kind == "Int" else ends
    parameter = ranged(type=kind, min=str(low), max=str(high), scale=scale, points=points)
    found = [Fraction(value) for value in choices(parameter)]
    assert found == sorted(set(found))
    assert (float(found[0]), float(found[-1])) == (float(low), float(high))
    assert len(found) <= points


def test_a_log_scale_gives_each_ratio_its_share():
    space = Space(
        [
            ranged("f", type="Float", min="0.001", max="1", scale="Log"),
            ranged("i", type="Int", min=10, max=1000, scale="Log"),
            ranged("linear", type="Int", min=1, max=4),
            {"name": "choice", "values": ["a", "b", "c", "d"]},
        ]
    )
    found = [space.random(3, trial) for trial in range(3000)]
    below = sum(float(each["f"]) < 0.01 for each in found)
    assert below == pytest.approx(1000, abs=100)  # 3.9 standard deviations
    assert sum(each["i"] <= 100 for each in found) == pytest.approx(1520, abs=110)
    for name, values in (("linear", [1, 2, 3, 4]), ("choice", ["a", "b", "c", "d"])):
        for value in values:
            assert sum(each[name] == value for each in found) == pytest.approx(750, abs=95)


values = st.lists(
    st.integers(0, 5) | st.sampled_from(["a", "b"]), min_size=1, max_size=4, unique=True
)


@st.composite
def spaces(draw):
    """Parameters of which later ones depend on earlier ones."""
    found: list[dict] = []
    for index in range(draw(st.integers(1, 5))):
        parameter: dict = {"name": f"p{index}", "values": draw(values)}
        if found and draw(st.booleans()):
            earlier = draw(st.sampled_from(found))
            wanted = draw(st.lists(st.sampled_from(earlier["values"]), min_size=1, unique=True))
            parameter["when"] = {"parameter": earlier["name"], "values": wanted}
        found.append(parameter)
    return found


def agrees(parameters, assigned):
    """Whether a trial has exactly the parameters whose conditions hold, with values of theirs."""
    return all(
        assigned[each["name"]] in each["values"]
        if holds(each, assigned)
        else each["name"] not in assigned
        for each in parameters
    ) and len(assigned) <= len(parameters)


def holds(parameter, assigned):
    when = parameter.get("when")
    return when is None or (
        when["parameter"] in assigned and assigned[when["parameter"]] in when["values"]
    )


@patiently
@given(spaces(), trials, seeds)
def test_conditions_hold(parameters, trial, seed):
    space = Space(parameters)
    found = list(space.grid())
    assert all(agrees(parameters, assigned) for assigned in found)
    assert len({tuple(assigned.items()) for assigned in found}) == len(found)
    assigned = space.random(seed, trial)
    assert agrees(parameters, assigned)
    assert assigned in found


@patiently
@given(spaces(), trials, seeds)
def test_a_value_depends_on_its_own_trial_and_name_alone(parameters, trial, seed):
    space = Space(parameters)
    assigned = space.random(seed, trial)
    assert space.random(seed, trial) == assigned
    for parameter in space.parameters:
        assert space.random_value(seed, trial, parameter) == assigned.get(parameter.name)
    # A further parameter changes none of the others.
    wider = Space([{"name": "z", "values": [1, 2, 3]}, *parameters])
    assert {k: v for k, v in wider.random(seed, trial).items() if k != "z"} == assigned
