"""The operator is gone for a while: jobs go on, end rightly, and can be deleted."""

from __future__ import annotations

import slow
from jobs import assert_succeeded, job, state, wait_ended, wait_job
from kubectl import Kubectl, wait_until
from operators import on_rig, operator_away


def test_a_job_is_deleted_while_the_operator_is_away(release: Kubectl, namespace: Kubectl) -> None:
    namespace.apply(job("endless", epochs=100_000))
    wait_job(namespace, "endless", "it trains", lambda found: state(found) == "Running")
    with operator_away(release):
        namespace.run("delete", "optjob", "endless", "--timeout=30s")
        namespace.gone(("pods", "services"), "shardwise.dev/job-name=endless")


def test_a_job_that_ends_while_the_operator_is_away_is_told_of_later(
    release: Kubectl, namespace: Kubectl
) -> None:
    on_rig(release)
    slow.start(namespace, "unseen", workers={"replicas": 2})
    # The group stands, and needs the coordinator no more.
    slow.trains_on(namespace, "unseen", 2, {})
    with operator_away(release):
        slow.hurry(namespace, "unseen")
        wait_until(
            "the worker that writes the result ends; the other may yet be needed, and waits",
            lambda: sorted(phases(namespace, "unseen")) == ["Running", "Succeeded"],
        )
    assert_succeeded(wait_ended(namespace, "unseen"))


def phases(namespace: Kubectl, name: str) -> list[str]:
    return [pod["status"].get("phase", "") for pod in namespace.pods(name)]
