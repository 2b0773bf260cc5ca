"""What may come in on a connection: a token first, of somebody known, then a worker's messages.

Nothing but the token is looked at before it is known whose it is. What becomes of who was let in is
the service's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shardwise.coordinator.connection import Connection
from shardwise.coordinator.protocol import PROTOCOL, FromWorker, Hello, ProtocolError, Refused

TOKEN_SECONDS = 5.0
"""How long a connection may take to show its token, TLS handshake aside."""
HELLO_SECONDS = 10.0
"""How long the rest of its hello may take."""
AUTHENTICATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a connection is known by."""

    token: str = field(repr=False)
    place: str = ""
    """Where it comes from, as `crowd.place` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom an authenticated connection belongs to."""

    task: str
    worker: str | None
    """None: the token is that of all workers of the task, and each is who it says it is."""
    index: int | None


Authenticate = Callable[[Credential], Awaitable[Identity]]


async def first_token(connection: Connection) -> str | None:
    """What the connection begins with; None where it ends without a word.

    Raises:
        ProtocolError: it is no hello.
        TimeoutError: it does not come.
    """
    async with asyncio.timeout(TOKEN_SECONDS):
        return await connection.token()


async def identified(
    credential: Credential, authenticate: Authenticate, say: Callable[[str], None]
) -> Identity | None:
    """Whose it is; None where that cannot be known now, after `say` was told why.

    Raises:
        Refused: it is of nobody.
    """
    try:
        async with asyncio.timeout(AUTHENTICATE_SECONDS):
            return await authenticate(credential)
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001
        # The caller's code, which may ask a server that is down. The worker is not at fault:
        # without a verdict it tries again.
        say(f"a connection of {credential.place} could not be authenticated: {error!r}")
        return None


async def first_hello(connection: Connection, identity: Identity) -> Hello | None:
    """The hello of whom the token has shown; None where the connection ends before.

    Raises:
        ProtocolError: it is no hello.
        Refused: it is of another release, or of somebody else than its token.
        TimeoutError: it does not come.
    """
    async with asyncio.timeout(HELLO_SECONDS):
        hello = await connection.receive()
    if hello is None:
        return None
    if not isinstance(hello, Hello):
        raise ProtocolError(f"the first message must be a hello, not {hello.type}")
    if hello.protocol != PROTOCOL:
        raise Refused(
            "RefusedWorker",
            f"the worker speaks protocol {hello.protocol}, the coordinator {PROTOCOL}: "
            "use images of one release",
        )
    shared = (identity.worker, identity.index) == (None, None)
    if not shared and (identity.worker, identity.index) != (hello.worker, hello.index):
        raise Refused(
            "RefusedWorker",
            f"the worker says it is {hello.worker}, index {hello.index}, but its token is of "
            f"{identity.worker}, index {identity.index}",
        )
    return hello


def from_worker(message: object) -> FromWorker:
    """A message after the hello, as it is.

    Raises:
        ProtocolError: no worker sends it there.
    """
    if isinstance(message, FromWorker) and not isinstance(message, Hello):
        return message
    raise ProtocolError(f"a worker does not send {type(message).__name__} here")
