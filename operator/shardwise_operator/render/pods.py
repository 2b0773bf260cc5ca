"""A worker's pod: admissible in a namespace of the restricted Pod Security Standard.

What is trained does not stand in the environment: the coordinator hands it over. The annotation
with the accepted trainer is for the operator itself (see `names`). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardwise.api import environment as env
from shardwise_operator import names
from shardwise_operator.observe import JobView
from shardwise_operator.render.merge import merged_pod_spec

UID = 65532
TERMINATION_LOG = "/dev/termination-log"
TOKEN_SECONDS = 3600
GRACE_SECONDS = 30
"""For the step under way and a checkpoint, once a worker is asked to leave."""
KILL_SECONDS = 3
"""Of the grace period, what is left for the end itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderFacts:
    """What a pod needs to know of this operator."""

    image: str
    pull_policy: str
    coordinator_address: str
    coordinator_name: str
    certificate: str
    """The coordinator's certificate, PEM: workers trust it and no other."""
    metrics_from: tuple[Mapping[str, Any], ...] | None = None
    """NetworkPolicyPeers that may read workers' metrics; None where jobs get no NetworkPolicy."""


def owner_reference(job: JobView) -> dict[str, Any]:
    """Lets the garbage collector remove what we made, with or without an operator."""
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        # True would need the right to set finalizers, and delays the job's own deletion.
        "blockOwnerDeletion": False,
    }


def labels(job: JobView) -> dict[str, str]:
    return {
        names.MANAGED_BY: names.MANAGER,
        names.APP_NAME: names.WORKER,
        names.JOB_NAME: job.name,
        names.JOB_UID: job.uid,
    }


def pod_manifest(
    job: JobView, index: int, trainer: Mapping[str, Any], facts: RenderFacts
) -> dict[str, Any]:
    """The pod of the worker of this index."""
    spec = job.manifest.get("spec") or {}
    template = spec.get("template") or {}
    extra = template.get("metadata") or {}
    name = names.pod_name(job.name, index)
    pod_labels = {**(extra.get("labels") or {}), **labels(job), names.INDEX: str(index)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": job.namespace,
            "labels": pod_labels,
            "annotations": {
                **(extra.get("annotations") or {}),
                names.ACCEPTED_TRAINER: json.dumps(trainer, sort_keys=True, separators=(",", ":")),
            },
            "ownerReferences": [owner_reference(job)],
        },
        "spec": _forced(
            merged_pod_spec(
                _pod_spec(job, index, trainer, facts, spec),
                template.get("spec") or {},
            ),
            name,
            job,
        ),
    }


def _forced(spec: dict[str, Any], name: str, job: JobView) -> dict[str, Any]:
    """What no template may change: the operator's reading of a pod rests on it."""
    forced = {**spec, "restartPolicy": "Never", "hostname": name, "subdomain": job.name}
    return _with_grace(forced)


def _with_grace(spec: dict[str, Any]) -> dict[str, Any]:
    """Tells the worker how long it may take to leave: it ends before it is killed."""
    grace = spec.get("terminationGracePeriodSeconds")
    seconds = max(grace - KILL_SECONDS, 1) if isinstance(grace, int) else GRACE_SECONDS
    entry = {"name": env.GRACE_SECONDS, "value": str(seconds)}
    containers = [
        {**container, "env": [*(container.get("env") or ()), entry]}
        if isinstance(container, Mapping) and container.get("name") == names.CONTAINER
        else container
        for container in spec.get("containers") or ()
    ]
    return {**spec, "containers": containers}


def _pod_spec(
    job: JobView,
    index: int,
    trainer: Mapping[str, Any],
    facts: RenderFacts,
    job_spec: Mapping[str, Any],
) -> dict[str, Any]:
    output = job_spec.get("output") or {}
    checkpoint = job_spec.get("checkpoint") or {}
    code = (trainer.get("codeFrom") or {}).get("configMap")
    volumes = [
        {"name": "output", **(output.get("volume") or {"emptyDir": {}})},
        {"name": "tmp", "emptyDir": {}},
        {"name": "coordinator-token", "projected": {"sources": [_token()]}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "output", "mountPath": env.OUTPUT_DIRECTORY},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "coordinator-token", "mountPath": env.TOKEN_DIRECTORY, "readOnly": True},
    ]
    if checkpoint.get("volume"):
        volumes.append({"name": "checkpoint", **checkpoint["volume"]})
        mounts.append({"name": "checkpoint", "mountPath": env.CHECKPOINT_DIRECTORY})
    if code:
        volumes.append({"name": "code", "configMap": {"name": code}})
        mounts.append({"name": "code", "mountPath": env.CODE_DIRECTORY, "readOnly": True})
    threads = str(trainer.get("threads") or 1)
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {names.JOB_UID: job.uid}},
            }
        ],
        "affinity": {"podAntiAffinity": _apart(job)},
        "containers": [
            {
                "name": names.CONTAINER,
                "image": trainer.get("image") or facts.image,
                "imagePullPolicy": facts.pull_policy,
                "command": ["python", "-m", "shardwise.worker"],
                "ports": [
                    {
                        "name": "metrics",
                        "containerPort": env.METRICS_PORT_NUMBER,
                        "protocol": "TCP",
                    }
                ],
                "env": _environment(
                    job, index, facts, threads, checkpoint, code=bool(code), pool="tasks" in trainer
                ),
                "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
                "volumeMounts": mounts,
                "terminationMessagePath": TERMINATION_LOG,
                # A worker that dies without a word leaves its log's end in its status instead.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
        "volumes": volumes,
    }


def _token() -> dict[str, Any]:
    return {
        "serviceAccountToken": {
            "audience": env.TOKEN_AUDIENCE,
            "expirationSeconds": TOKEN_SECONDS,
            "path": "token",
        }
    }


def _apart(job: JobView) -> dict[str, Any]:
    return {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 50,
                "podAffinityTerm": {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {names.JOB_UID: job.uid}},
                },
            }
        ]
    }


def _environment(
    job: JobView,
    index: int,
    facts: RenderFacts,
    threads: str,
    checkpoint: Mapping[str, Any],
    *,
    code: bool,
    pool: bool,
) -> list[dict[str, Any]]:
    values = {
        env.COORDINATOR: facts.coordinator_address,
        env.COORDINATOR_CA: facts.certificate,
        env.COORDINATOR_NAME: facts.coordinator_name,
        env.TOKEN_FILE: f"{env.TOKEN_DIRECTORY}/token",
        env.WORKER: names.pod_name(job.name, index),
        env.INDEX: str(index),
        env.JOB: f"{job.namespace}/{job.name}",
        # A folder a job, so that jobs may share a volume.
        env.OUTPUT: f"{env.OUTPUT_DIRECTORY}/{job.name}",
        env.METRICS_PORT: str(env.METRICS_PORT_NUMBER),
        env.TERMINATION_LOG: TERMINATION_LOG,
        "OMP_NUM_THREADS": threads,
        "HOME": "/tmp",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if checkpoint.get("volume"):
        values[env.CHECKPOINT] = f"{env.CHECKPOINT_DIRECTORY}/{job.name}"
    elif checkpoint.get("url"):
        url = str(checkpoint["url"]).rstrip("/")
        values[env.CHECKPOINT] = f"{url}/{job.namespace}/{job.name}"
    if code:
        values["PYTHONPATH"] = env.CODE_DIRECTORY
    if pool:
        values[env.POOL] = "1"
    address = {"name": env.ADDRESS, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return [*({"name": name, "value": value} for name, value in values.items()), address]
