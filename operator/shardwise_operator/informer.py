"""A list and watch of one kind of object, for as long as the operator leads.

Lists in pages, then watches; lists again whenever the watch cannot go on. One object that cannot be
read is passed over by the port, and ends nothing here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from shardwise_operator.jobs import Key, key_of
from shardwise_operator.port import ApiError, Cluster

log = logging.getLogger(__name__)


class Informer:
    """What all informers do. A subclass says what is kept of an object."""

    kind: ClassVar[str]
    selector: ClassVar[str] = ""
    page: ClassVar[int]

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: float = 1.0,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._pause = pause
        self._contact = clock()
        self.synced = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the API server was last heard of."""
        return self._clock() - self._contact

    def keys(self) -> Collection[Key]:
        """Of all objects that are known."""
        raise NotImplementedError

    def put(self, raw: Mapping[str, Any]) -> None:
        """Takes an object in, as it now is."""
        raise NotImplementedError

    def remove(self, key: Key, uid: str | None = None) -> None:
        """An object is gone; with a uid, that very one."""
        raise NotImplementedError

    async def run(self) -> None:
        """Never ends."""
        while True:
            try:
                version = await self._list()
                self.synced.set()
                while True:
                    version = await self._watch(version)
            except ApiError as error:
                expired = error.status == 410
                level = logging.INFO if expired else logging.WARNING
                where = self._namespace or "all namespaces"
                log.log(level, "watch of %s in %s starts anew: %s", self.kind, where, error)
                # An expired watch may list at once; a server in trouble is left in peace a while.
                await asyncio.sleep(0 if expired else self._pause)

    async def _list(self) -> str:
        found: set[Key] = set()
        token, size, left = "", self.page, 0
        while True:
            try:
                page = await self._cluster.list_page(
                    self.kind, self._namespace, selector=self.selector, limit=size, continue_=token
                )
            except ApiError as error:
                if error.reason != "Unreadable" or size == 1:
                    raise
                # One of them cannot be read: which one shows when they come one by one.
                size, left = 1, self.page
                continue
            self._contact = self._clock()
            for raw in page.get("items") or ():
                found.add(key_of(raw))
                self.put(raw)
            meta = page.get("metadata") or {}
            token = meta.get("continue") or ""
            if not token:
                break
            left -= 1
            size = 1 if size == 1 and left > 0 else self.page
        for key in [key for key in self.keys() if key not in found]:
            self.remove(key)
        return str(meta.get("resourceVersion") or "")

    async def _watch(self, version: str) -> str:
        """One watch request; gives the version to go on from."""
        stream = self._cluster.watch(
            self.kind, self._namespace, selector=self.selector, resource_version=version
        )
        async for event in stream:
            self._contact = self._clock()
            kind, raw = event.get("type"), event.get("object") or {}
            if kind == "ERROR":
                raise ApiError(
                    int(raw.get("code") or 0),
                    str(raw.get("reason") or "WatchError"),
                    str(raw.get("message") or ""),
                )
            meta = raw.get("metadata") or {}
            version = meta.get("resourceVersion") or version
            if kind in ("ADDED", "MODIFIED"):
                self.put(raw)
            elif kind == "DELETED":
                self.remove(key_of(raw), meta.get("uid"))
        self._contact = self._clock()
        return version
