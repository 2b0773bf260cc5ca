"""What may come in on a connection: a hello first, of somebody known, then a worker's messages.

What becomes of who was let in is the service's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shardwise.coordinator.connection import Connection
from shardwise.coordinator.protocol import PROTOCOL, FromWorker, Hello, ProtocolError, Refused

log = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
"""How long a connection may take to say hello, TLS handshake aside."""
AUTHENTICATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom an authenticated connection belongs to."""

    task: str
    worker: str
    index: int


Authenticate = Callable[[Hello], Awaitable[Identity]]


async def first_hello(connection: Connection) -> Hello | None:
    """What the connection begins with; None where it ends without a word.

    Raises:
        ProtocolError: it is no hello.
        Refused: it is of another release.
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
    return hello


async def identified(hello: Hello, authenticate: Authenticate) -> Identity | None:
    """Whose hello it is; None where that cannot be known now.

    Raises:
        Refused: it is of nobody, or of somebody else.
    """
    try:
        async with asyncio.timeout(AUTHENTICATE_SECONDS):
            identity = await authenticate(hello)
    except Refused:
        raise
    except Exception:
        # The caller's code, which may ask a server that is down. The worker is not at fault:
        # without a verdict it tries again.
        log.warning("%s could not be authenticated", hello.worker, exc_info=True)
        return None
    if (identity.worker, identity.index) != (hello.worker, hello.index):
        raise Refused(
            "RefusedWorker",
            f"the worker says it is {hello.worker}, index {hello.index}, but its token is of "
            f"{identity.worker}, index {identity.index}",
        )
    return identity


def from_worker(message: object) -> FromWorker:
    """A message after the hello, as it is.

    Raises:
        ProtocolError: no worker sends it there.
    """
    if isinstance(message, FromWorker) and not isinstance(message, Hello):
        return message
    raise ProtocolError(f"a worker does not send {type(message).__name__} here")
