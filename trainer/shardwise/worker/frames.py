"""What travels on a connection between workers: tensors' bytes in frames, protected or plain.

A frame is a head, which has the tag and the length of the body, and the body. Protected, the head
and each record of the body (RECORD_BYTES, the last one shorter) are sealed with AES-256-GCM, under
the direction's key and a nonce that counts: what is changed, left out, said twice or said in
another order does not open. "sealed" leaves the bytes readable, and they go from one tensor to
the other without a copy; "encrypted" hides them as well. "authenticated" is what its connection is,
and adds nothing.

Both directions are generators that do no I/O: `outgoing` gives buffers to send, `incoming` gives
buffers to fill, in order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shardwise.coordinator.protocol import Protection

RECORD_BYTES = 1 << 16
_HEAD = struct.Struct("<QQ")
_SEAL_BYTES = 16


class FrameError(Exception):
    """What came is not what the peer has sent."""


Place = Callable[[int, int], memoryview | None]
"""Where a body of this tag and length goes; None: nowhere yet."""
Landed = Callable[[], None]
"""The body that was placed last is there."""
Buffers = list[memoryview]


class Frames(Protocol):
    """One connection's frames."""

    def outgoing(self, tag: int, body: memoryview) -> Iterator[Buffers]:
        """The buffers of one frame; the next ones are asked for when these are sent."""
        ...

    def incoming(self, place: Place, landed: Landed) -> Iterator[Buffers | None]:
        """Buffers to fill, for ever; None while a body has no place.

        Raises:
            FrameError: a seal is broken.
        """
        ...


def frames(protection: Protection, send_key: bytes, receive_key: bytes) -> Frames:
    """The frames of one connection, begun."""
    if protection == "authenticated":
        return _Plain()
    seal, opened = _Seal(send_key), _Seal(receive_key)
    return (_Encrypted if protection == "encrypted" else _Sealed)(seal, opened)


class _Seal:
    """A key and a nonce that counts."""

    def __init__(self, key: bytes) -> None:
        self.cipher = AESGCM(key)
        self._count = 0

    def nonce(self) -> bytes:
        self._count += 1
        return self._count.to_bytes(12, "little")


class _Plain:
    def outgoing(self, tag: int, body: memoryview) -> Iterator[Buffers]:
        yield [memoryview(_HEAD.pack(tag, len(body))), body]

    def incoming(self, place: Place, landed: Landed) -> Iterator[Buffers | None]:
        head = memoryview(bytearray(_HEAD.size))
        while True:
            yield [head]
            tag, length = _HEAD.unpack(head)
            while (body := place(tag, length)) is None:
                yield None
            if length:
                yield [body]
            landed()


class _Sealed:
    def __init__(self, seal: _Seal, opened: _Seal) -> None:
        self._seal, self._opened = seal, opened

    def outgoing(self, tag: int, body: memoryview) -> Iterator[Buffers]:
        head = _HEAD.pack(tag, len(body))
        buffers = [memoryview(head + self._sealed(head))]
        for record in _records(body):
            yield [*buffers, record, memoryview(self._sealed(record))]
            buffers = []
        if buffers:
            yield buffers

    def incoming(self, place: Place, landed: Landed) -> Iterator[Buffers | None]:
        head, seal = memoryview(bytearray(_HEAD.size)), memoryview(bytearray(_SEAL_BYTES))
        while True:
            yield [head, seal]
            self._check(head, seal)
            tag, length = _HEAD.unpack(head)
            while (body := place(tag, length)) is None:
                yield None
            for record in _records(body):
                yield [record, seal]
                self._check(record, seal)
            landed()

    def _sealed(self, data: bytes | memoryview) -> bytes:
        return self._seal.cipher.encrypt(self._seal.nonce(), b"", data)

    def _check(self, data: memoryview, seal: memoryview) -> None:
        try:
            self._opened.cipher.decrypt(self._opened.nonce(), seal, data)
        except InvalidTag as error:
            raise FrameError("a broken seal") from error


class _Encrypted:
    def __init__(self, seal: _Seal, opened: _Seal) -> None:
        self._seal, self._opened = seal, opened
        self._out = memoryview(bytearray(_HEAD.size + RECORD_BYTES + 2 * _SEAL_BYTES))
        self._in = memoryview(bytearray(RECORD_BYTES + _SEAL_BYTES))

    def outgoing(self, tag: int, body: memoryview) -> Iterator[Buffers]:
        used = self._hide(_HEAD.pack(tag, len(body)), 0)
        for record in _records(body):
            used = self._hide(record, used)
            yield [self._out[:used]]
            used = 0
        if used:
            yield [self._out[:used]]

    def incoming(self, place: Place, landed: Landed) -> Iterator[Buffers | None]:
        head, hidden = memoryview(bytearray(_HEAD.size)), self._in[: _HEAD.size + _SEAL_BYTES]
        while True:
            yield [hidden]
            self._show(hidden, head)
            tag, length = _HEAD.unpack(head)
            while (body := place(tag, length)) is None:
                yield None
            for record in _records(body):
                data = self._in[: len(record) + _SEAL_BYTES]
                yield [data]
                self._show(data, record)
            landed()

    def _hide(self, data: bytes | memoryview, start: int) -> int:
        end = start + len(data) + _SEAL_BYTES
        self._seal.cipher.encrypt_into(self._seal.nonce(), data, None, self._out[start:end])
        return end

    def _show(self, data: memoryview, into: memoryview) -> None:
        try:
            self._opened.cipher.decrypt_into(self._opened.nonce(), data, None, into)
        except InvalidTag as error:
            raise FrameError("a broken seal") from error


def _records(body: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(body), RECORD_BYTES):
        yield body[start : start + RECORD_BYTES]
