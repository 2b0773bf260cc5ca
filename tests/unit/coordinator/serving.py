"""A coordinator on a socket with the workers that a test connects to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from shardwise.coordinator import Coordinator, Credential, Identity, Refused
from shardwise.coordinator.admission import Authenticate
from shardwise.coordinator.protocol import (
    Ack,
    FromWorker,
    Generation,
    Go,
    Hello,
    Message,
    Ready,
    Welcome,
    decode,
    encode,
)

TASK = "default/digits"
Kind = TypeVar("Kind", bound=Message)


async def authenticate(credential: Credential) -> Identity:
    """A token is a worker's name, or `secret` for all."""
    if credential.token == "wrong":
        raise Refused("RefusedWorker", "the token is not of this job")
    if credential.token == "down":
        raise ConnectionError("no API server")
    if credential.token.startswith("w-"):
        index = int(credential.token.removeprefix("w-"))
        return Identity(task=TASK, worker=credential.token, index=index)
    return Identity(task=TASK, worker=None, index=None)


def back(hello: Callable[..., Hello], index: int) -> Hello:
    """A worker that trains in generation 1, on a new connection."""
    return hello(
        index,
        generation=1,
        phase="training",
        members=("w-0", "w-1"),
        fingerprint={"torch": "2.13.0", "threads": 1},
    )


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.005)


class Client:
    """A worker's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, message: FromWorker) -> None:
        self.writer.write(encode(message))

    async def next(self, kind: type[Kind]) -> Kind:
        async with asyncio.timeout(10):
            line = await self.reader.readline()
        message = decode(line)
        assert isinstance(message, kind), message
        return message

    async def ended(self) -> bool:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                return await self.reader.read() == b""
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                await self.writer.wait_closed()


class Server:
    """A coordinator with one open task, and the clients that a test has connected."""

    def __init__(self, coordinator: Coordinator, changes: list[str]) -> None:
        self.coordinator = coordinator
        self.changes = changes
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.clients: list[Client] = []

    async def connect(self, hello: Hello | None = None) -> Client:
        name = "coordinator.test" if self.tls else None
        client = Client(
            *await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=self.tls, server_hostname=name, limit=1 << 21
            )
        )
        self.clients.append(client)
        if hello is not None:
            client.send(hello)
        return client

    async def trained(self, hello: Callable[..., Hello], workers: int) -> list[Client]:
        """Connected workers that were sent their go."""
        clients = [await self.connect(hello(index)) for index in range(workers)]
        for client in clients:
            await client.next(Welcome)
            client.send(Ready(fingerprint={"threads": 1}))
        for client in clients:
            generation = (await client.next(Generation)).generation
            client.send(Ack(generation=generation, step=0, digest="d"))
        for client in clients:
            await client.next(Go)
        return clients

    async def joins(self, hello: Hello) -> Client:
        """A worker that is loaded."""
        client = await self.connect(hello)
        await client.next(Welcome)
        client.send(Ready(fingerprint={"threads": 1}))
        return client

    def state(self) -> str:
        report = self.coordinator.report(TASK)
        return "none" if report is None else report.state


@contextlib.asynccontextmanager
async def serving(
    *,
    authenticate: Authenticate = authenticate,
    certificate: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A coordinator that listens; its clients are closed and it is stopped in the end.

    `certificate` holds the server's context and the clients', where it speaks TLS.
    """
    changes: list[str] = []
    coordinator = Coordinator(authenticate=authenticate, on_change=changes.append, **settings)
    made = Server(coordinator, changes)
    accepting, made.tls = certificate or (None, None)
    made.port = await coordinator.start("127.0.0.1", 0, ssl=accepting)
    try:
        yield made
    finally:
        for client in made.clients:
            await client.close()
        await made.coordinator.stop()
