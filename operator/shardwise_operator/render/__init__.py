"""Manifests of what the operator creates: plain dictionaries, from plain values.

Pure. Carried out by `apply`; decides nothing.
"""

from __future__ import annotations

from shardwise_operator.render.merge import merged_pod_spec
from shardwise_operator.render.networkpolicy import network_policy_manifest
from shardwise_operator.render.pods import RenderFacts, pod_manifest
from shardwise_operator.render.service import service_manifest

__all__ = [
    "RenderFacts",
    "merged_pod_spec",
    "network_policy_manifest",
    "pod_manifest",
    "service_manifest",
]
