"""Where workers find the coordinator: the address behind its Service, written by the leader.

The Service has no selector. One that selected all replicas would lead workers to those that only
stand by; one that selected the ready ones would need replicas that stand by to be unready, which no
rolling update and no disruption budget could live with; and a label that the leader gives its own
pod would take the right to patch pods, and with it to run any image here. Patching one named
Endpoints object can do no more than lead workers astray, who know the coordinator's certificate.
Endpoints, not EndpointSlices: the older kind is served by every version, and mirrored to the newer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from shardwise_operator import names
from shardwise_operator.port import ApiError, Cluster

log = logging.getLogger(__name__)

ENDPOINTS = "endpoints"
AGAIN_SECONDS = 10.0
"""A write of the leader before us may arrive late, and somebody may delete the object."""
RETRY_SECONDS = 2.0


def endpoints(namespace: str, service: str, pod: str, address: str, port: int) -> dict[str, Any]:
    """The Endpoints of the Service with this one pod behind it."""
    target = {"kind": "Pod", "namespace": namespace, "name": pod}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": service,
            "namespace": namespace,
            "labels": {names.MANAGED_BY: names.MANAGER},
        },
        "subsets": [
            {
                "addresses": [{"ip": address, "targetRef": target}],
                # The Service's port finds its target by this name.
                "ports": [{"name": "coordinator", "port": port, "protocol": "TCP"}],
            }
        ],
    }


async def announce(cluster: Cluster, body: dict[str, Any], announced: Callable[[], None]) -> None:
    """Keeps the Endpoints as given; calls back after each time it has. Never ends."""
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    while True:
        try:
            await _write(cluster, namespace, name, body)
            announced()
        except ApiError as error:
            log.warning("the coordinator's address was not written to %s: %s", name, error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            await asyncio.sleep(AGAIN_SECONDS)


async def _write(cluster: Cluster, namespace: str, name: str, body: dict[str, Any]) -> None:
    try:
        await cluster.patch(ENDPOINTS, namespace, name, body)
    except ApiError as error:
        if error.status != 404:
            raise
        await cluster.create(ENDPOINTS, namespace, body)
