"""What `helm test` tells somebody who has just installed the chart: a job of two workers runs."""

from __future__ import annotations

from jobs import KIND
from kubectl import Kubectl

SECONDS = 240


def test_helm_test_runs_a_job_and_leaves_nothing(release: Kubectl) -> None:
    said = release.helm("test", "shardwise", f"--timeout={SECONDS}s", seconds=SECONDS + 30)
    assert "Phase:          Succeeded" in said
    assert "Failed" not in said
    assert not release.list(KIND)
