"""The operator's rights against the audit log of all cluster tests: it asks for nothing that it may
not do, and has no right that nothing uses. Last by its name, so that the log holds the whole run.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kubectl import Kubectl
from progress import say
from rights import Right, denied, granted, used

AUDIT = Path("/run/kube-lab/log/audit.jsonl")
USER = "system:serviceaccount:shardwise-system:shardwise"
TAKEN = "whose object it is that has the name of one of ours"
UNUSED: dict[Right, str] = {
    Right("", "services", "get"): TAKEN,
    Right("", "pods", "get"): TAKEN,
    Right("networking.k8s.io", "networkpolicies", "get"): TAKEN,
    Right("", "events", "list"): "why a pod does not start, once it has waited for a minute",
    Right("", "events", "patch"): "an Event that comes again is counted up",
    Right("shardwise.dev", "optimizationjobs", "delete"): "ttlSecondsAfterFinished",
}
"""Rights for what a run of the cluster tests may not come to, and what they are for."""


@pytest.fixture
def log(release: Kubectl) -> list[str]:
    if not release.kubeconfig.is_relative_to(AUDIT.parents[1]):
        pytest.skip("the audit log is that of the rig's own API server")
    return AUDIT.read_text().splitlines()


def roles(release: Kubectl) -> list[dict[str, object]]:
    """Those that are bound to the operator's account."""
    found = []
    for binding in [*release.list("clusterrolebindings"), *_all(release, "rolebindings")]:
        if any(
            subject.get("name") == "shardwise" and subject.get("namespace") == "shardwise-system"
            for subject in binding.get("subjects") or ()
        ):
            kind = binding["roleRef"]["kind"].lower()
            client = release.within(binding["metadata"].get("namespace") or release.namespace)
            role = client.get(kind, binding["roleRef"]["name"])
            assert role is not None, binding
            found.append(role)
    return found


def _all(release: Kubectl, kind: str) -> list[dict[str, object]]:
    done = release.run("get", kind, "--all-namespaces", "--output=json")
    items: list[dict[str, object]] = json.loads(done.stdout)["items"]
    return items


def test_nothing_is_asked_for_that_no_role_gives(release: Kubectl, log: list[str]) -> None:
    """As a release moves to Roles of one namespace, calls are denied for a moment."""
    assert denied(log, USER) <= granted(roles(release))


def test_every_right_is_used_or_explained(release: Kubectl, log: list[str]) -> None:
    given, did = granted(roles(release)), used(log, USER)
    unused = given - did
    say(f"rights: {len(given)} granted, {len(given & did)} used; not used: {sorted(unused)}")
    assert unused <= UNUSED.keys()
    resources = {right for right in did if not right.resource.startswith("/")}
    assert resources <= given
