"""The informer on the worker pods: selected by label on the server, kept in memory, trimmed.

Tells which job a change belongs to; decides nothing. Its age of last contact feeds /healthz.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from shardwise_operator import names
from shardwise_operator.informer import Informer
from shardwise_operator.jobs import Key, key_of
from shardwise_operator.port import Cluster
from shardwise_operator.schema import conform

PAGE = 500
CONDITIONS = ("PodScheduled", "Ready", "ContainersReady", "DisruptionTarget")
OWNER = ("apiVersion", "kind", "name", "uid", "controller")
Pod = Mapping[str, Any]
PARTS = {"metadata": "V1ObjectMeta", "spec": "V1PodSpec", "status": "V1PodStatus"}


class PodInformer(Informer):
    """The pods of one namespace, or of all (an empty name)."""

    kind = "pods"
    selector = names.POD_SELECTOR
    page = PAGE

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        on_change: Callable[[str, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: float = 1.0,
    ) -> None:
        super().__init__(cluster, namespace, clock=clock, pause=pause)
        self._on_change = on_change
        self._pods: dict[tuple[str, str], Pod] = {}
        self._by_job: dict[tuple[str, str], dict[str, Pod]] = {}

    def pods(self, namespace: str, job: str) -> Sequence[Pod]:
        """The pods that carry this job's name, whichever job of that name they are of."""
        return tuple(self._by_job.get((namespace, job), {}).values())

    def pod(self, namespace: str, name: str) -> Pod | None:
        return self._pods.get((namespace, name))

    def keys(self) -> Collection[Key]:
        return self._pods

    def put(self, raw: Pod) -> None:
        pod = trimmed(raw)
        key = key_of(pod)
        old = self._pods.get(key)
        if old == pod:
            return
        if old is not None and _job(old) != _job(pod):
            self.remove(key)
        self._pods[key] = pod
        job = (key[0], _job(pod))
        self._by_job.setdefault(job, {})[key[1]] = pod
        self._on_change(*job)

    def remove(self, key: Key, uid: str | None = None) -> None:
        del uid
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
    raw = {part: conform(raw.get(part), kind) or {} for part, kind in PARTS.items()}
    meta, status = raw.get("metadata") or {}, raw.get("status") or {}
    labels, spec = meta.get("labels") or {}, raw.get("spec") or {}
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
            "ownerReferences": [
                {key: owner.get(key) for key in OWNER}
                for owner in meta.get("ownerReferences") or ()
                if owner.get("controller") is True
            ],
        },
        "spec": {
            "nodeName": spec.get("nodeName"),
            **{key: read(spec[key]) for key, read in _SPEC.items() if spec.get(key)},
        },
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


_SPEC: Mapping[str, Callable[[Sequence[Pod]], list[dict[str, Any]]]] = {
    "schedulingGates": lambda gates: [{"name": gate.get("name")} for gate in gates],
    "initContainers": lambda containers: [
        {key: container.get(key) for key in ("name", "restartPolicy")} for container in containers
    ],
}
"""What of a spec, beside the node, says why a pod does not start."""


def _states(containers: Sequence[Pod] | None) -> list[dict[str, Any]]:
    return [
        {key: container.get(key) for key in ("name", "state", "started")}
        for container in containers or ()
    ]


def _job(pod: Pod) -> str:
    return str(((pod.get("metadata") or {}).get("labels") or {}).get(names.JOB_NAME) or "")
