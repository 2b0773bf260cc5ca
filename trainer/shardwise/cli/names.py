"""Names that the commands share with the operator: of the resource, of labels, of the container.

Written out rather than imported from `shardwise.api`: that loads pydantic. A test holds them equal.
"""

from __future__ import annotations

from typing import Final

from shardwise import __version__

GROUP: Final = "shardwise.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "optimizationjobs"
KIND: Final = "OptimizationJob"
SINGULAR: Final = "optimizationjob"
API_VERSION: Final = "shardwise.dev/v1alpha1"
JOB_NAME: Final = "shardwise.dev/job-name"
JOB_UID: Final = "shardwise.dev/job-uid"
INDEX: Final = "shardwise.dev/index"
MANAGER: Final = "shardwise.dev/operator"
CONTAINER: Final = "trainer"
OPERATOR_SELECTOR: Final = "app.kubernetes.io/name=shardwise,app.kubernetes.io/component=operator"
FIELD_MANAGER: Final = "shardwise-cli"
USER_AGENT: Final = f"shardwise-cli/{__version__}"


def pods_of(job: str) -> str:
    """The selector of a job's pods."""
    return f"{JOB_NAME}={job}"


def events_of(job: str) -> str:
    """The field selector of a job's Events."""
    return f"involvedObject.kind={KIND},involvedObject.name={job}"
