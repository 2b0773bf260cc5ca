"""`watchNamespaces`: jobs there are served, jobs elsewhere are left alone, rights too."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from jobs import KIND, assert_succeeded, job, wait_ended
from kubectl import Kubectl
from releases import upgraded


@pytest.fixture
def elsewhere(release: Kubectl) -> Iterator[Kubectl]:
    name = f"elsewhere-{uuid.uuid4().hex[:8]}"
    release.run("create", "namespace", name)
    yield release.within(name)
    release.run("delete", "namespace", name, "--wait=false")


def may(release: Kubectl, verb: str, kind: str, namespace: str) -> bool:
    account = f"system:serviceaccount:{release.namespace}:shardwise"
    command = ("auth", "can-i", verb, kind, f"--as={account}")
    return release.within(namespace).run(*command, check=False).stdout.strip() == "yes"


def test_only_the_named_namespace_is_served(
    release: Kubectl, namespace: Kubectl, elsewhere: Kubectl
) -> None:
    with upgraded(release, f"watchNamespaces={{{namespace.namespace}}}"):
        assert may(release, "create", "pods", namespace.namespace)
        assert not may(release, "create", "pods", elsewhere.namespace)
        assert not may(release, "list", KIND, elsewhere.namespace)
        elsewhere.apply(job("waits", workers=1))
        namespace.apply(job("served", workers=1))
        assert_succeeded(wait_ended(namespace, "served"))
        left_alone = elsewhere.get(KIND, "waits")
        assert left_alone is not None and "status" not in left_alone
        assert not elsewhere.pods("waits")
    # All namespaces again: the job that was there all along is taken up.
    assert may(release, "create", "pods", elsewhere.namespace)
    assert_succeeded(wait_ended(elsewhere, "waits"))
