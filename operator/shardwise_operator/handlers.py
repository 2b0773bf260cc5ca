"""kopf's wiring: events of OptimizationJobs go into the store and the queue, and nothing else.

Level-based `on.event` only. Handlers that detect changes, daemons and timers would write
annotations or finalizers into users' objects. With kopf's scanning off, neither namespaces nor
CRDs are listed: a role for one namespace suffices. kopf reads the API through `guarded`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import kopf

from shardwise_operator import guarded, names
from shardwise_operator.jobs import JobStore, Key, key_of

log = logging.getLogger(__name__)

PAGE = 20
"""Of objects that may have 1.5 MiB each."""


def registry(
    jobs: JobStore, enqueue: Callable[[Key], None], feed: guarded.Feed
) -> kopf.OperatorRegistry:
    """The handlers, in a registry of their own."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return guarded.session(found, feed) if found else None

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=handlers)
    async def job_event(event: kopf.RawEvent, **_: Any) -> None:
        raw: dict[str, Any] = dict(event["object"])
        key = key_of(raw)
        if event["type"] == "DELETED":
            jobs.remove(key, uid=(raw.get("metadata") or {}).get("uid"))
        else:
            jobs.put(raw)
        enqueue(key)

    return handlers


def settings() -> kopf.OperatorSettings:
    """kopf's settings: everything that writes is off, and nothing waits for long."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    chosen.watching.server_timeout = 300
    chosen.watching.connect_timeout = 10
    chosen.watching.chunk_size = PAGE
    chosen.networking.request_timeout = 15
    chosen.execution.default_backoff = 2
    return chosen
