"""Follows lists of objects through the API server's watches, a thread each, into one queue.

A watch that ends is taken up again where it was; one that has grown too old begins with a new
list. An error that time does not heal (no right, no such kind) ends that watch and is handed on.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import Any

from shardwise.cli.cluster import Cluster
from shardwise.cli.errors import ApiError

PAUSE_SECONDS = 2.0
"""After an error."""
REST_SECONDS = 0.1
"""Between two watches: a server that ends them at once is not hammered."""


@dataclass(frozen=True, slots=True)
class Source:
    """What to follow; the name says whose news it is."""

    name: str
    kind: str
    namespace: str
    selector: str = ""
    fields: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """ADDED, MODIFIED or DELETED and the object; LISTED once the first list has been handed on;
    BROKEN while the server does not answer, FAILED when the watch has ended, with the error."""

    source: str
    type: str
    object: dict[str, Any]
    error: ApiError | None = None


class Follower:
    """Follows the sources until closed. Threads are daemons: a stuck read holds up no exit."""

    def __init__(self, cluster: Cluster, sources: list[Source]) -> None:
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._cluster = cluster
        self._closed = threading.Event()
        for source in sources:
            threading.Thread(
                target=self._follow, args=(source,), name=f"follow-{source.name}", daemon=True
            ).start()

    def close(self) -> None:
        self._closed.set()

    def _follow(self, source: Source) -> None:
        known: dict[str, dict[str, Any]] = {}
        version = ""
        while not self._closed.is_set():
            try:
                if not version:
                    version = self._list(source, known)
                version = self._watch(source, version, known)
                self._closed.wait(REST_SECONDS)
            except ApiError as error:
                if error.status == 410:  # Too old a place: a new list begins at the newest.
                    version = ""
                    self._closed.wait(REST_SECONDS)
                    continue
                final = 400 <= error.status < 500 and error.status not in (408, 429)
                self.news.put(News(source.name, "FAILED" if final else "BROKEN", {}, error))
                if final:
                    return
                self._closed.wait(PAUSE_SECONDS)

    def _list(self, source: Source, known: dict[str, dict[str, Any]]) -> str:
        """Hands on how the list differs from what is known; returns its resource version."""
        found = self._cluster.list(
            source.kind, namespace=source.namespace, selector=source.selector, fields=source.fields
        )
        now = {_key(item): item for item in found["items"]}
        for key in known.keys() - now.keys():
            self.news.put(News(source.name, "DELETED", known.pop(key)))
        for key, item in now.items():
            self.news.put(News(source.name, "MODIFIED" if key in known else "ADDED", item))
            known[key] = item
        self.news.put(News(source.name, "LISTED", {}))
        return str(found["metadata"].get("resourceVersion") or "")

    def _watch(self, source: Source, version: str, known: dict[str, dict[str, Any]]) -> str:
        """Hands on the stream; returns the resource version to go on from, "" for a new list."""
        stream = self._cluster.watch(
            source.kind,
            namespace=source.namespace,
            selector=source.selector,
            fields=source.fields,
            version=version,
        )
        for event in stream:
            if self._closed.is_set():
                break
            found = event.get("object") or {}
            if event.get("type") == "ERROR":
                raise ApiError(int(found.get("code") or 0), "Watch", str(found.get("message")))
            version = str((found.get("metadata") or {}).get("resourceVersion") or version)
            if event.get("type") == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                known.pop(_key(found), None)
            else:
                known[_key(found)] = found
            self.news.put(News(source.name, str(event["type"]), found))
        return version


def _key(item: dict[str, Any]) -> str:
    meta = item["metadata"]
    return f"{meta.get('namespace')}/{meta['name']}"
