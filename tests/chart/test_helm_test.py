"""What `helm test` runs: as restricted as the operator, with rights to one job of one name."""

from __future__ import annotations

import kubernetes_validate
import pytest

JOB = "shardwise-test"


@pytest.mark.parametrize(
    ("settings", "namespace"),
    [((), "shardwise-system"), (("watchNamespaces={team-b,team-a}",), "team-b")],
)
def test_it_makes_one_job_where_jobs_are_served(render, settings, namespace: str) -> None:
    found = {item["kind"]: item for item in render(*settings, hooks=True)}
    assert found.keys() == {"ServiceAccount", "Role", "RoleBinding", "Pod"}
    for item in found.values():
        kubernetes_validate.validate(item, "1.34", strict=True)
        annotations = item["metadata"]["annotations"]
        assert annotations["helm.sh/hook"] == "test"
        assert "hook-succeeded" in annotations["helm.sh/hook-delete-policy"]  # It cleans up.
    assert found["Role"]["metadata"]["namespace"] == namespace
    verbs = {verb: rule for rule in found["Role"]["rules"] for verb in rule["verbs"]}
    assert verbs.keys() == {"create", "get", "delete"}
    assert all(verbs[verb]["resourceNames"] == [JOB] for verb in ("get", "delete"))
    (container,) = found["Pod"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment == {"SHARDWISE_TEST_NAMESPACE": namespace, "SHARDWISE_TEST_JOB": JOB}


def test_it_runs_restricted_in_the_operators_image(render) -> None:
    (pod,) = [item for item in render(hooks=True) if item["kind"] == "Pod"]
    (operator,) = [item for item in render() if item["kind"] == "Deployment"]
    (container,) = pod["spec"]["containers"]
    (other,) = operator["spec"]["template"]["spec"]["containers"]
    assert container["image"] == other["image"]
    assert container["securityContext"] == other["securityContext"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    # The operator's selectors must not take it for a replica.
    selector = operator["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items()
