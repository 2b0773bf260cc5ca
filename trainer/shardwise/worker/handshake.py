"""How the two ends of a connection between workers prove that they are of one generation.

The coordinator gives each generation a secret. Who connects knocks, who listens answers, who
connects proves, in messages of fixed lengths:

    connector -> listener   knock:  magic, generation, both ranks, protection, nonce, MAC
    listener -> connector   answer: nonce, MAC
    connector -> listener   proof:  MAC

Each MAC is an HMAC-SHA256 with the secret, over a label of its own and everything that both know
by then: the knock's fields and the nonces. So a message is of use in one generation, for one pair
of ranks, in one direction and, because of the listener's nonce, on one connection only. A listener
answers a knock with a right MAC, and says nothing to a stranger. The keys of what follows
come from the secret and both nonces. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from shardwise.coordinator.protocol import PROTECTIONS, Protection

NONCE_BYTES = 32
_MAC_BYTES = 32
_MAGIC = b"shardwX1"
_FIELDS = struct.Struct(f"<8sQIIB{NONCE_BYTES}s")
KNOCK_BYTES = _FIELDS.size + _MAC_BYTES
ANSWER_BYTES = NONCE_BYTES + _MAC_BYTES
PROOF_BYTES = _MAC_BYTES


class HandshakeError(Exception):
    """The other end has not proven that it is of this generation."""


class Keys(NamedTuple):
    """One key for each direction, 32 bytes each."""

    to_listener: bytes
    to_connector: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Self:
    """One member, as its handshakes have it."""

    secret: bytes = field(repr=False)
    generation: int
    rank: int
    size: int
    protection: Protection


class Connector:
    """The end that connects.

    Args:
        nonce: NONCE_BYTES random bytes, for this connection only.

    Attributes:
        knock: what it sends first.
    """

    def __init__(self, me: Self, peer: int, nonce: bytes) -> None:
        self._secret = me.secret
        fields = _FIELDS.pack(
            _MAGIC, me.generation, me.rank, peer, PROTECTIONS.index(me.protection), nonce
        )
        self._fields = fields
        self.knock = fields + _mac(me.secret, b"knock", fields)

    def take(self, answer: bytes) -> tuple[bytes, Keys]:
        """The listener has proven itself: the proof to send, and the keys.

        Raises:
            HandshakeError: it has not.
        """
        if len(answer) != ANSWER_BYTES:
            raise HandshakeError(f"an answer of {len(answer)} bytes")
        said = self._fields + answer[:NONCE_BYTES]
        _check(self._secret, b"answer", said, answer[NONCE_BYTES:])
        return _mac(self._secret, b"proof", said), _keys(self._secret, said)


class Listener:
    """The end that listens, for one connection.

    Args:
        nonce: NONCE_BYTES random bytes, for this connection only.

    Attributes:
        peer: the rank that the knock named; believed once `finish` has returned.
    """

    def __init__(self, me: Self, nonce: bytes) -> None:
        self._me, self._nonce = me, nonce
        self._said: bytes | None = None
        self.peer = -1

    def answer(self, knock: bytes) -> bytes:
        """What to answer.

        Raises:
            HandshakeError: it is no knock, or none for this member of this generation.
        """
        me = self._me
        if self._said is not None or len(knock) != KNOCK_BYTES:
            raise HandshakeError(f"a knock of {len(knock)} bytes")
        fields = knock[: _FIELDS.size]
        _check(me.secret, b"knock", fields, knock[_FIELDS.size :])
        magic, generation, connector, listener, protection, _ = _FIELDS.unpack(fields)
        if magic != _MAGIC:
            raise HandshakeError("a knock of another release")
        if (generation, listener) != (me.generation, me.rank):
            raise HandshakeError(f"a knock for rank {listener} of generation {generation}")
        if not me.rank < connector < me.size:
            raise HandshakeError(f"rank {connector} does not connect to rank {me.rank}")
        if protection != PROTECTIONS.index(me.protection):
            raise HandshakeError("a knock with another protection")
        self.peer = connector
        self._said = fields + self._nonce
        return self._nonce + _mac(me.secret, b"answer", self._said)

    def finish(self, proof: bytes) -> Keys:
        """The connector has proven itself: the keys.

        Raises:
            HandshakeError: it has not.
        """
        if self._said is None or len(proof) != PROOF_BYTES:
            raise HandshakeError(f"a proof of {len(proof)} bytes")
        _check(self._me.secret, b"proof", self._said, proof)
        return _keys(self._me.secret, self._said)


def _mac(secret: bytes, label: bytes, said: bytes) -> bytes:
    if not secret:
        raise HandshakeError("this generation has no secret")
    return hmac.digest(secret, b"shardwise exchange: %s\0" % label + said, "sha256")


def _check(secret: bytes, label: bytes, said: bytes, mac: bytes) -> None:
    if not hmac.compare_digest(_mac(secret, label, said), mac):
        raise HandshakeError(f"the {label.decode()} is not of this generation")


def _keys(secret: bytes, said: bytes) -> Keys:
    return Keys(
        _mac(secret, b"key to the listener", said), _mac(secret, b"key to the connector", said)
    )
