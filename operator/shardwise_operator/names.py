"""Names that the operator gives to what it makes: labels, annotations, mount names.

Shared by rendering, the informer and the coordinator's authentication.
"""

from __future__ import annotations

GROUP = "shardwise.dev"
VERSION = "v1alpha1"
KIND = "OptimizationJob"
PLURAL = "optimizationjobs"

MANAGED_BY = "app.kubernetes.io/managed-by"
APP_NAME = "app.kubernetes.io/name"
JOB_NAME = "shardwise.dev/job-name"
JOB_UID = "shardwise.dev/job-uid"
INDEX = "shardwise.dev/index"
ACCEPTED_TRAINER = "shardwise.dev/accepted-trainer"
"""Annotation: the spec.trainer, and beside its fields spec.compression and spec.tasks, that a pod
was made for. A later edit of the job, then a restart of the operator, must not hand another task to
workers of the first."""

MANAGER = "shardwise"
CONTROLLER = "operator.shardwise.dev"
"""Who writes EndpointSlices and Events: a label's value, and a qualified name, may not be longer or
have a slash."""
WORKER = "shardwise-worker"
POD_SELECTOR = f"{MANAGED_BY}={MANAGER},{APP_NAME}={WORKER}"
CONTAINER = "trainer"


def network_policy_name(uid: str) -> str:
    return f"shardwise-{uid}"


def pod_name(job: str, index: int) -> str:
    return f"{job}-{index}"
