"""The audit log's reader of the cluster tests, on lines as the API server writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cluster"))

from rights import Right, denied, granted, used

USER = "system:serviceaccount:ns:operator"


def line(verb: str, decision: str = "allow", user: str = USER, **at: str) -> str:
    return json.dumps(
        {
            "user": {"username": user},
            "verb": verb,
            "objectRef": at,
            "requestURI": "/x",
            "annotations": {"authorization.k8s.io/decision": decision},
        }
    )


def test_used_and_denied_are_told_apart():
    lines = [
        line("create", resource="pods"),
        line("patch", "forbid", resource="pods"),
        line("patch", resource="jobs", subresource="status", apiGroup="x.dev"),
        line("delete", user=f"{USER}-2", resource="pods"),
    ]
    assert used(lines, USER) == {
        Right("", "pods", "create"),
        Right("x.dev", "jobs/status", "patch"),
    }
    assert denied(lines, USER) == {Right("", "pods", "patch")}


def test_roles_give_each_verb_on_each_resource():
    rule = {"apiGroups": ["", "a"], "resources": ["pods", "pods/log"], "verbs": ["get"]}
    assert len(granted([{"rules": [rule]}])) == 4
