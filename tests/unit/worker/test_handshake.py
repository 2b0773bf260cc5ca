"""The handshake between workers: who does not know the generation's secret gets nowhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwise.coordinator.protocol import PROTECTIONS
from shardwise.worker.handshake import (
    ANSWER_BYTES,
    KNOCK_BYTES,
    NONCE_BYTES,
    PROOF_BYTES,
    Connector,
    HandshakeError,
    Keys,
    Listener,
    Self,
)

nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
secrets = st.binary(min_size=32, max_size=32)


def member(rank: int, **changes: Any) -> Self:
    values: dict[str, Any] = {
        "secret": b"s" * 32,
        "generation": 7,
        "rank": rank,
        "size": 4,
        "protection": "authenticated",
    }
    return Self(**{**values, **changes})


def shake(connector: Connector, listener: Listener) -> tuple[Keys, Keys]:
    """The keys of both ends."""
    proof, mine = connector.take(listener.answer(connector.knock))
    return mine, listener.finish(proof)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Self, Self]:
    """A member that connects and the one that it connects to."""
    size = draw(st.integers(2, 5000))
    low = draw(st.integers(0, size - 2))
    high = draw(st.integers(low + 1, size - 1))
    me = Self(
        secret=draw(secrets),
        generation=draw(st.integers(0, 2**63)),
        rank=high,
        size=size,
        protection=draw(st.sampled_from(PROTECTIONS)),
    )
    return me, dataclasses.replace(me, rank=low)


@given(pairs(), nonces, nonces)
def test_two_members_come_to_the_same_keys(pair, first, second) -> None:
    high, low = pair
    connector, listener = Connector(high, low.rank, first), Listener(low, second)
    mine, theirs = shake(connector, listener)
    assert mine == theirs
    assert len({*mine, high.secret}) == 3, "one key a direction, neither of them the secret"
    assert listener.peer == high.rank
    assert [len(connector.knock), len(mine.to_listener)] == [KNOCK_BYTES, 32]


@given(pairs(), nonces, nonces, st.data())
def test_other_nonces_other_keys(pair, first, second, data) -> None:
    high, low = pair
    other = data.draw(nonces.filter(lambda nonce: nonce != second))
    one, _ = shake(Connector(high, low.rank, first), Listener(low, second))
    two, _ = shake(Connector(high, low.rank, first), Listener(low, other))
    assert not {*one} & {*two}


DIFFERENT = {
    "another secret": {"secret": b"t" * 32},
    "another generation": {"generation": 8},
    "an older generation": {"generation": 6},
    "another protection": {"protection": "encrypted"},
}


@pytest.mark.parametrize("how", DIFFERENT)
def test_a_member_of_something_else_is_refused(how: str) -> None:
    honest, changed = member(2), member(2, **DIFFERENT[how])
    listener = Listener(member(0), bytes(32))
    with pytest.raises(HandshakeError):
        listener.answer(Connector(changed, 0, bytes(32)).knock)
    # Nor does a member that connects believe such a listener.
    connector = Connector(honest, 0, bytes(32))
    there = dataclasses.replace(changed, rank=0)
    with pytest.raises(HandshakeError):
        connector.take(Listener(there, bytes(32)).answer(Connector(changed, 0, bytes(32)).knock))


@pytest.mark.parametrize(("connects", "listens"), [(0, 2), (2, 2), (4, 0), (4000, 0)])
def test_only_higher_ranks_of_the_group_connect(connects: int, listens: int) -> None:
    with pytest.raises(HandshakeError, match="does not connect"):
        Listener(member(listens), bytes(32)).answer(
            Connector(member(connects), listens, bytes(32)).knock
        )


@given(nonces, nonces, st.data())
def test_a_changed_bit_anywhere_ends_it(first, second, data) -> None:
    def flipped(message: bytes) -> bytes:
        at = data.draw(st.integers(0, 8 * len(message) - 1))
        return bytes(b ^ (1 << at % 8) * (i == at // 8) for i, b in enumerate(message))

    connector, listener = Connector(member(2), 0, first), Listener(member(0), second)
    with pytest.raises(HandshakeError):
        Listener(member(0), second).answer(flipped(connector.knock))
    answer = listener.answer(connector.knock)
    with pytest.raises(HandshakeError):
        connector.take(flipped(answer))
    proof, _ = connector.take(answer)
    with pytest.raises(HandshakeError):
        listener.finish(flipped(proof))


@given(st.binary(max_size=300))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(HandshakeError):
        Listener(member(0), bytes(32)).answer(data)
    with pytest.raises(HandshakeError):
        Connector(member(2), 0, bytes(32)).take(data)
    listener = Listener(member(0), bytes(32))
    listener.answer(Connector(member(2), 0, bytes(32)).knock)
    with pytest.raises(HandshakeError):
        listener.finish(data)


@given(st.integers(0, KNOCK_BYTES - 1), st.integers(1, 200))
def test_truncated_and_oversized(short: int, more: int) -> None:
    connector, listener = Connector(member(2), 0, bytes(32)), Listener(member(0), bytes(32))
    for knock in (connector.knock[:short], connector.knock + bytes(more)):
        with pytest.raises(HandshakeError):
            listener.answer(knock)
    answer = listener.answer(connector.knock)
    for wrong in (answer[: min(short, ANSWER_BYTES - 1)], answer + bytes(more)):
        with pytest.raises(HandshakeError):
            connector.take(wrong)
    proof, _ = connector.take(answer)
    for wrong in (proof[: min(short, PROOF_BYTES - 1)], proof + bytes(more)):
        with pytest.raises(HandshakeError):
            listener.finish(wrong)


def test_a_replayed_knock_and_proof_are_worth_nothing() -> None:
    connector, listener = Connector(member(2), 0, b"a" * 32), Listener(member(0), b"b" * 32)
    proof, _ = connector.take(listener.answer(connector.knock))
    listener.finish(proof)
    again = Listener(member(0), b"c" * 32)
    again.answer(connector.knock)
    with pytest.raises(HandshakeError):
        again.finish(proof)


def test_a_recorded_answer_is_worth_nothing() -> None:
    first, listener = Connector(member(2), 0, b"a" * 32), Listener(member(0), b"b" * 32)
    answer = listener.answer(first.knock)
    with pytest.raises(HandshakeError):
        Connector(member(2), 0, b"c" * 32).take(answer)


def test_what_a_member_says_cannot_be_said_back_to_it() -> None:
    """Reflection: the knock as an answer, the answer as a proof, a knock to who knocked."""
    connector, listener = Connector(member(2), 0, b"a" * 32), Listener(member(0), b"a" * 32)
    with pytest.raises(HandshakeError):
        connector.take(connector.knock[-ANSWER_BYTES:])
    answer = listener.answer(connector.knock)
    with pytest.raises(HandshakeError):
        listener.finish(answer[-PROOF_BYTES:])
    with pytest.raises(HandshakeError):
        listener.finish(connector.knock[-PROOF_BYTES:])
    with pytest.raises(HandshakeError, match="for rank 0"):
        Listener(member(2), b"d" * 32).answer(connector.knock)


def test_a_stranger_that_stands_between_two_pairs_gets_nowhere() -> None:
    """A right knock for one listener, handed to another."""
    knock = Connector(member(3), 0, b"a" * 32).knock
    for other in (1, 2):
        with pytest.raises(HandshakeError):
            Listener(member(other), b"b" * 32).answer(knock)


def test_one_knock_a_connection() -> None:
    listener = Listener(member(0), bytes(32))
    listener.answer(Connector(member(2), 0, bytes(32)).knock)
    with pytest.raises(HandshakeError):
        listener.answer(Connector(member(3), 0, bytes(32)).knock)


def test_no_proof_before_a_knock() -> None:
    with pytest.raises(HandshakeError):
        Listener(member(0), bytes(32)).finish(bytes(PROOF_BYTES))


def test_without_a_secret_nobody_is_believed() -> None:
    with pytest.raises(HandshakeError, match="no secret"):
        Connector(member(2, secret=b""), 0, bytes(32))
    with pytest.raises(HandshakeError, match="no secret"):
        Listener(member(0, secret=b""), bytes(32)).answer(Connector(member(2), 0, bytes(32)).knock)


def test_the_secret_is_not_shown() -> None:
    assert "ssss" not in repr(member(0))
