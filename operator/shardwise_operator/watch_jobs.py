"""The informer on OptimizationJobs: each change goes into the store and the queue, nothing else.

It writes no annotations and no finalizers into users' objects, and lists neither namespaces nor
CRDs: a role for one namespace suffices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from shardwise_operator import names
from shardwise_operator.informer import Informer
from shardwise_operator.jobs import JobStore, Key, key_of
from shardwise_operator.port import Cluster

PAGE = 20
"""Of objects that may have 1.5 MiB each."""


class JobInformer(Informer):
    """The jobs of one namespace, or of all (an empty name)."""

    kind = names.PLURAL
    page = PAGE

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        jobs: JobStore,
        enqueue: Callable[[Key], None],
        *,
        pause: float = 1.0,
    ) -> None:
        super().__init__(cluster, namespace, pause=pause)
        self._jobs = jobs
        self._enqueue = enqueue

    def keys(self) -> Collection[Key]:
        return [key for key in self._jobs.all_keys() if self._namespace in ("", key[0])]

    def put(self, raw: Mapping[str, Any]) -> None:
        self._jobs.put(raw)
        self._enqueue(key_of(raw))

    def remove(self, key: Key, uid: str | None = None) -> None:
        self._jobs.remove(key, uid)
        self._enqueue(key)
