"""The operator is gone for a while: jobs go on, end rightly, and can be deleted."""

from __future__ import annotations

from jobs import KIND, assert_succeeded, job, percent, state, wait_ended
from kubectl import Kubectl, wait_until
from operators import operator_away


def test_a_job_is_deleted_while_the_operator_is_away(release: Kubectl, namespace: Kubectl) -> None:
    namespace.apply(job("endless", epochs=100_000))
    namespace.wait_for("it trains", KIND, "endless", lambda found: state(found) == "Running")
    with operator_away(release):
        namespace.run("delete", "optjob", "endless", "--timeout=30s")
        namespace.gone(("pods", "services"), "shardwise.dev/job-name=endless")


def test_a_job_that_ends_while_the_operator_is_away_is_told_of_later(
    release: Kubectl, namespace: Kubectl
) -> None:
    namespace.apply(job("unseen", epochs=100))
    # A first report: the group stands, and needs the coordinator no more.
    namespace.wait_for("steps are done", KIND, "unseen", lambda found: percent(found) > 0)
    with operator_away(release):
        wait_until(
            "the worker that writes the result ends; the other may yet be needed, and waits",
            lambda: sorted(phases(namespace, "unseen")) == ["Running", "Succeeded"],
            seconds=150,  # It waits a minute for someone to tell its result to.
        )
    assert_succeeded(wait_ended(namespace, "unseen"))


def phases(namespace: Kubectl, name: str) -> list[str]:
    return [pod["status"].get("phase", "") for pod in namespace.pods(name)]
