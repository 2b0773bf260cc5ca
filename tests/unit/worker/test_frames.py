"""What travels between workers arrives as it was sent, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwise.coordinator.protocol import PROTECTIONS
from shardwise.worker.frames import RECORD_BYTES, FrameError, frames

A, B = b"a" * 32, b"b" * 32
LENGTHS = st.sampled_from(
    [0, 1, 8, 1000, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 3 * RECORD_BYTES + 5]
)
SEALED = [protection for protection in PROTECTIONS if protection != "authenticated"]


def wire(protection, messages, keys=(A, B)) -> list[bytes]:
    """What is sent of these messages, by frame."""
    sender = frames(protection, *keys)
    return [
        b"".join(
            bytes(buffer)
            for buffers in sender.outgoing(tag, memoryview(body))
            for buffer in buffers
        )
        for tag, body in messages
    ]


def received(protection, data: bytes, keys=(B, A)) -> list[tuple[int, bytes]]:
    """What comes of it."""
    placed: list[tuple[int, bytearray]] = []
    whole: list[tuple[int, bytes]] = []

    def place(tag: int, length: int) -> memoryview:
        assert length <= len(data), "a length that was never sent is believed"
        placed.append((tag, bytearray(length)))
        return memoryview(placed[-1][1])

    incoming = frames(protection, *keys).incoming(
        place, lambda: whole.append((placed[-1][0], bytes(placed[-1][1])))
    )
    rest = memoryview(data)
    while True:
        for buffer in next(incoming):
            if len(rest) < len(buffer):
                return whole
            buffer[:] = rest[: len(buffer)]
            rest = rest[len(buffer) :]


messages = st.lists(st.tuples(st.integers(0, 2**63), LENGTHS), max_size=4).map(
    lambda each: [(tag, bytes([i % 251] * length)) for i, (tag, length) in enumerate(each)]
)


@pytest.mark.parametrize("protection", PROTECTIONS)
@given(sent=messages)
def test_what_was_sent_arrives(protection, sent) -> None:
    # A frame more: the last one's end is seen by the next one's beginning.
    data = b"".join(wire(protection, [*sent, (9, b"end")]))
    assert received(protection, data)[: len(sent)] == sent


@pytest.mark.parametrize("protection", SEALED)
@given(length=LENGTHS, data=st.data())
def test_a_changed_bit_is_noticed(protection, length, data) -> None:
    changed = bytearray(b"".join(wire(protection, [(1, bytes(length)), (2, b"next")])))
    at = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(FrameError):
        received(protection, bytes(changed))


@pytest.mark.parametrize("protection", SEALED)
@pytest.mark.parametrize(
    "order", [[1, 0, 2], [0, 0, 1], [1, 2], [0, 2]], ids=["swapped", "twice", "first", "left out"]
)
def test_frames_come_in_their_order_and_once(protection, order) -> None:
    sent = wire(protection, [(1, b"one"), (1, b"two"), (1, b"six")])
    with pytest.raises(FrameError):
        received(protection, b"".join(sent[each] for each in order))


@pytest.mark.parametrize("protection", SEALED)
def test_what_goes_one_way_is_not_taken_the_other_way(protection) -> None:
    with pytest.raises(FrameError):
        received(protection, wire(protection, [(1, b"one")])[0], keys=(A, B))


@pytest.mark.parametrize("protection", SEALED)
@given(garbage=st.binary(min_size=64, max_size=200))
def test_garbage_is_no_frame(protection, garbage) -> None:
    with pytest.raises(FrameError):
        received(protection, garbage)


def test_what_is_encrypted_cannot_be_read() -> None:
    body = b"the gradient of a model" * 10
    assert body[:20] not in wire("encrypted", [(1, body)])[0]
    assert body in wire("sealed", [(1, body)])[0]
