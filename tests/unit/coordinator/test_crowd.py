"""Whose turn it is at the door, and who makes room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwise.coordinator.crowd import Crowd, place


def crowd(*items: str) -> Crowd[str]:
    """Items whose first letter is their place."""
    made: Crowd[str] = Crowd()
    for item in items:
        made.add(item, item[0])
    return made


def test_places_take_turns() -> None:
    found = crowd("a1", "a2", "a3", "a4", "b1", "c1")
    assert [found.next() for _ in range(6)] == ["a1", "b1", "c1", "a2", "a3", "a4"]
    with pytest.raises(KeyError):
        found.next()


def test_one_of_another_place_is_held_up_by_one() -> None:
    found = crowd(*(f"a{i}" for i in range(1000)))
    assert found.next() == "a0"
    found.add("b0", "b")
    assert [found.next(), found.next()] == ["a1", "b0"]


def test_the_place_with_most_makes_room() -> None:
    found = crowd("b1", "a1", "a2", "a3")
    assert (found.oldest(), found.newest()) == ("a1", "a3")
    found.remove("a1")
    found.remove("nobody")
    found.remove("a2")
    assert sorted(found) == ["a3", "b1"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_everyone_has_a_turn_once(events: list[tuple[str, bool]]) -> None:
    found: Crowd[int] = Crowd()
    here, taken = set(), []
    for number, (where, take) in enumerate(events):
        if take and found:
            taken.append(found.next())
            here.discard(taken[-1])
        else:
            found.add(number, where)
            here.add(number)
        assert set(found) == here
        assert len(found) == len(here)
        assert all(number in found for number in here)
    assert len(set(taken)) == len(taken)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_where_a_connection_comes_from(host: str, expected: str) -> None:
    assert place((host, 1234)) == expected


def test_a_socket_without_an_address_has_a_place_too() -> None:
    assert place("") == ""
