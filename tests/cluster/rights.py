"""What the operator may do, and what it did: its roles against the API server's audit log.

Pure: roles and audit lines in, sets of rights out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple


class Right(NamedTuple):
    """One verb on one resource; a subresource as `pods/log`, a path that is no resource as such."""

    group: str
    resource: str
    verb: str


def granted(roles: Iterable[Mapping[str, Any]]) -> set[Right]:
    """All that these Roles and ClusterRoles give."""
    return {
        Right(group, resource, verb)
        for role in roles
        for rule in role.get("rules") or ()
        for group in rule.get("apiGroups") or [""]
        for resource in [*(rule.get("resources") or ()), *(rule.get("nonResourceURLs") or ())]
        for verb in rule["verbs"]
    }


def used(lines: Iterable[str], user: str) -> set[Right]:
    """All that this user asked for and was not denied."""
    return {right for right, allowed in _asked(lines, user) if allowed}


def denied(lines: Iterable[str], user: str) -> set[Right]:
    """All that this user asked for in vain."""
    return {right for right, allowed in _asked(lines, user) if not allowed}


def _asked(lines: Iterable[str], user: str) -> Iterator[tuple[Right, bool]]:
    for line in lines:
        if user not in line:
            continue
        event = json.loads(line)
        if event["user"].get("username") != user:
            continue
        at = event.get("objectRef")
        if at is None:
            right = Right("", event["requestURI"].partition("?")[0], event["verb"])
        else:
            parts = (at.get("resource", ""), at.get("subresource", ""))
            right = Right(at.get("apiGroup", ""), "/".join(filter(None, parts)), event["verb"])
        yield right, event.get("annotations", {}).get("authorization.k8s.io/decision") != "forbid"
