"""A strict little API server in memory: uids, versions, conflicts, status apart from the rest."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator
from typing import Any

from shardwise_operator.clock import ClusterClock
from shardwise_operator.port import ApiError


def merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


class FakeCluster:
    """Implements port.Cluster. `refuse` maps (verb, kind) to the error to raise."""

    def __init__(self) -> None:
        self.clock = ClusterClock()
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.refuse: dict[tuple[str, str], ApiError] = {}
        self.streams: list[list[dict[str, Any]]] = []
        self.review: dict[str, Any] = {}
        self.creating = self.most_creating = 0
        self._versions = itertools.count(1)

    def _note(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        error = self.refuse.get((verb, kind))
        if error is not None:
            raise error

    def _find(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise ApiError(404, "NotFound", f"{kind} {name} not found") from None

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        self._note("get", kind, name)
        return copy.deepcopy(self._find(kind, namespace, name))

    async def create(
        self, kind: str, namespace: str, body: Any, *, dry_run: bool = False
    ) -> dict[str, Any]:
        name = body["metadata"]["name"]
        if dry_run:
            self._note("dry run", kind, name)
            return copy.deepcopy(dict(body))
        self.creating += 1
        self.most_creating = max(self.most_creating, self.creating)
        try:
            await asyncio.sleep(0)
            self._note("create", kind, name)
        finally:
            self.creating -= 1
        if (kind, namespace, name) in self.objects:
            raise ApiError(409, "AlreadyExists", f"{kind} {name} already exists")
        made = copy.deepcopy(dict(body))
        version = str(next(self._versions))
        made["metadata"] = {**made["metadata"], "resourceVersion": version}
        made["metadata"].setdefault("uid", f"uid-{version}")
        self.objects[kind, namespace, name] = made
        return copy.deepcopy(made)

    async def patch(self, kind: str, namespace: str, name: str, body: Any) -> dict[str, Any]:
        self._note("patch", kind, name)
        plural, _, subresource = kind.partition("/")
        old = self._find(plural, namespace, name)
        kept = {"status": body.get("status", {})} if subresource else body
        new = merged(old, kept)
        new["metadata"] = {**new["metadata"], "resourceVersion": str(next(self._versions))}
        self.objects[plural, namespace, name] = new
        return copy.deepcopy(new)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self._note("delete", kind, name)
        if self._find(kind, namespace, name)["metadata"]["uid"] != uid:
            raise ApiError(409, "Conflict", "the uid does not match")
        del self.objects[kind, namespace, name]

    async def list_page(
        self,
        kind: str,
        namespace: str,
        *,
        selector: str = "",
        fields: str = "",
        limit: int,
        continue_: str = "",
    ) -> dict[str, Any]:
        self._note("list", kind, selector or fields)
        found = [o for (k, n, _), o in self.objects.items() if k == kind and namespace in ("", n)]
        begin = int(continue_ or 0)
        end = begin + limit
        return {
            "metadata": {
                "resourceVersion": str(next(self._versions)),
                "continue": str(end) if end < len(found) else "",
            },
            "items": copy.deepcopy(found[begin:end]),
        }

    async def watch(
        self, kind: str, namespace: str, *, selector: str, resource_version: str
    ) -> AsyncIterator[dict[str, Any]]:
        self._note("watch", kind, resource_version)
        if not self.streams:
            await asyncio.Event().wait()  # Silent until cancelled.
        for event in self.streams.pop(0):
            yield event

    async def version(self) -> tuple[int, int]:
        return 1, 37

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        self._note("review", "tokenreviews", audience)
        return self.review
