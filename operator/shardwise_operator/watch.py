"""Our own informer on the worker pods: a label-selected list and watch, kept in memory, trimmed.

kopf could not select by label on the server when it was measured, and costs far more a pod event.
Tells which job a change belongs to; decides nothing. Its age of last contact feeds /healthz.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shardwise_operator import names
from shardwise_operator.port import ApiError, Cluster

log = logging.getLogger(__name__)

PAGE = 500
CONDITIONS = ("PodScheduled", "Ready", "ContainersReady", "DisruptionTarget")
Pod = Mapping[str, Any]


class PodInformer:
    """The pods of one namespace, or of all (an empty name)."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        on_change: Callable[[str, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: float = 1.0,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._on_change = on_change
        self._clock = clock
        self._pause = pause
        self._pods: dict[tuple[str, str], Pod] = {}
        self._by_job: dict[tuple[str, str], dict[str, Pod]] = {}
        self._contact = clock()
        self.synced = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the API server was last heard of."""
        return self._clock() - self._contact

    def pods(self, namespace: str, job: str) -> Sequence[Pod]:
        """The pods that carry this job's name, whichever job of that name they are of."""
        return tuple(self._by_job.get((namespace, job), {}).values())

    def pod(self, namespace: str, name: str) -> Pod | None:
        return self._pods.get((namespace, name))

    async def run(self) -> None:
        """Lists, then watches; lists again whenever the watch cannot go on. Never ends."""
        while True:
            try:
                version = await self._list()
                self.synced.set()
                while True:
                    version = await self._watch(version)
            except ApiError as error:
                expired = error.status == 410
                level = logging.INFO if expired else logging.WARNING
                log.log(level, "pod watch of %r starts anew: %s", self._namespace or "all", error)
                # An expired watch may list at once; a server in trouble is left in peace a while.
                await asyncio.sleep(0 if expired else self._pause)

    async def _list(self) -> str:
        found: dict[tuple[str, str], Pod] = {}
        token = ""
        while True:
            page = await self._cluster.list_page(
                "pods",
                self._namespace,
                selector=names.POD_SELECTOR,
                limit=PAGE,
                continue_=token,
            )
            self._contact = self._clock()
            for raw in page.get("items") or ():
                pod = trimmed(raw)
                found[_key(pod)] = pod
            meta = page.get("metadata") or {}
            token = meta.get("continue") or ""
            if not token:
                break
        for key in [key for key in self._pods if key not in found]:
            self._remove(key)
        for pod in found.values():
            self._put(pod)
        return str(meta.get("resourceVersion") or "")

    async def _watch(self, version: str) -> str:
        """One watch request; gives the version to go on from."""
        stream = self._cluster.watch(
            "pods", self._namespace, selector=names.POD_SELECTOR, resource_version=version
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
            version = (raw.get("metadata") or {}).get("resourceVersion") or version
            if kind in ("ADDED", "MODIFIED"):
                self._put(trimmed(raw))
            elif kind == "DELETED":
                self._remove(_key(raw))
        self._contact = self._clock()
        return version

    def _put(self, pod: Pod) -> None:
        key = _key(pod)
        if self._pods.get(key) == pod:
            return
        self._pods[key] = pod
        job = (key[0], _job(pod))
        self._by_job.setdefault(job, {})[key[1]] = pod
        self._on_change(*job)

    def _remove(self, key: tuple[str, str]) -> None:
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        job = (key[0], _job(pod))
        siblings = self._by_job.get(job, {})
        siblings.pop(key[1], None)
        if not siblings:
            self._by_job.pop(job, None)
        self._on_change(*job)


class PodInformers:
    """The informers of all served namespaces as one."""

    def __init__(self, informers: Mapping[str, PodInformer]) -> None:
        self._informers = informers

    @property
    def age(self) -> float:
        return max(informer.age for informer in self._informers.values())

    def pods(self, namespace: str, job: str) -> Sequence[Pod]:
        informer = self._of(namespace)
        return informer.pods(namespace, job) if informer else ()

    def pod(self, namespace: str, name: str) -> Pod | None:
        informer = self._of(namespace)
        return informer.pod(namespace, name) if informer else None

    async def synced(self) -> None:
        for informer in self._informers.values():
            await informer.synced.wait()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                group.create_task(informer.run())

    def _of(self, namespace: str) -> PodInformer | None:
        return self._informers.get("") or self._informers.get(namespace)


def trimmed(raw: Pod) -> Pod:
    """What is read of a pod, and no more: a pod's spec and managedFields are most of its bytes."""
    meta, status = raw.get("metadata") or {}, raw.get("status") or {}
    labels = meta.get("labels") or {}
    annotation = (meta.get("annotations") or {}).get(names.ACCEPTED_TRAINER)
    return {
        "metadata": {
            "name": meta.get("name"),
            "namespace": meta.get("namespace"),
            "uid": meta.get("uid"),
            "creationTimestamp": meta.get("creationTimestamp"),
            "deletionTimestamp": meta.get("deletionTimestamp"),
            "labels": {
                key: labels[key]
                for key in (names.JOB_NAME, names.JOB_UID, names.INDEX)
                if key in labels
            },
            "annotations": {names.ACCEPTED_TRAINER: annotation} if annotation else {},
        },
        "spec": {"nodeName": (raw.get("spec") or {}).get("nodeName")},
        "status": {
            "phase": status.get("phase"),
            "reason": status.get("reason"),
            "message": status.get("message"),
            "startTime": status.get("startTime"),
            "conditions": [
                condition
                for condition in status.get("conditions") or ()
                if condition.get("type") in CONDITIONS
            ],
            "containerStatuses": _states(status.get("containerStatuses")),
            "initContainerStatuses": _states(status.get("initContainerStatuses")),
        },
    }


def _states(containers: Sequence[Pod] | None) -> list[dict[str, Any]]:
    return [{"name": c.get("name"), "state": c.get("state")} for c in containers or ()]


def _key(pod: Pod) -> tuple[str, str]:
    meta = pod.get("metadata") or {}
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")


def _job(pod: Pod) -> str:
    return str(((pod.get("metadata") or {}).get("labels") or {}).get(names.JOB_NAME) or "")
