"""A job's NetworkPolicy: its workers are reached by each other, and by what reads metrics. Pure.

A policy of the chart's own could not say "of the same job". It is named by the job's uid, so that
no earlier job's policy, nor anybody's object, has the name first. It selects by labels, which
whoever may create pods in the namespace can copy: it keeps strangers' connections away, and it is
the exchange's own authentication that keeps them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardwise.api import environment as env
from shardwise_operator import names
from shardwise_operator.observe import JobView
from shardwise_operator.render.pods import labels, owner_reference


def network_policy_manifest(
    job: JobView, metrics_from: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """`metrics_from` are NetworkPolicyPeers that may read the workers' metrics; none: nobody."""
    same_job = {"matchLabels": {names.JOB_UID: job.uid}}
    ingress: list[dict[str, Any]] = [{"from": [{"podSelector": same_job}]}]
    if metrics_from:
        port = {"protocol": "TCP", "port": env.METRICS_PORT_NUMBER}
        ingress.append({"from": [dict(peer) for peer in metrics_from], "ports": [port]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": names.network_policy_name(job.uid),
            "namespace": job.namespace,
            "labels": labels(job),
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {"podSelector": same_job, "policyTypes": ["Ingress"], "ingress": ingress},
    }
