"""The headless Service of a job: its workers' host names, before they are ready as well. Pure."""

from __future__ import annotations

from typing import Any

from shardwise_operator import names
from shardwise_operator.observe import JobView
from shardwise_operator.render.pods import labels, owner_reference


def service_manifest(job: JobView) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job.name,
            "namespace": job.namespace,
            "labels": labels(job),
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.JOB_UID: job.uid},
        },
    }
