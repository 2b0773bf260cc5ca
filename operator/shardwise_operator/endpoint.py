"""Where workers find the coordinator: the address behind its Service, written by the leader.

The Service has no selector. One that selected all replicas would lead workers to those that only
stand by; one that selected the ready ones would need replicas that stand by to be unready, which no
rolling update and no disruption budget could live with; and a label that the leader gives its own
pod would take the right to patch pods, and with it to run any image here. Patching one named
EndpointSlice can do no more than lead workers astray, who know the coordinator's certificate.
Servers before v1.21 do not serve discovery.k8s.io/v1; there the leader writes Endpoints.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

from shardwise_operator import names
from shardwise_operator.port import ApiError, Cluster

log = logging.getLogger(__name__)

ENDPOINT_SLICES, ENDPOINTS = "endpointslices", "endpoints"
SLICE_OF = "kubernetes.io/service-name"
SLICE_MANAGER = "endpointslice.kubernetes.io/managed-by"
AGAIN_SECONDS = 10.0
"""A write of the leader before us may arrive late, and somebody may delete the object."""
RETRY_SECONDS = 2.0

Body = dict[str, Any]


def endpoint_slice(namespace: str, service: str, pod: str, address: str, port: int) -> Body:
    """The EndpointSlice of the Service with this one pod behind it.

    A slice's address type cannot be changed, so the name carries it: `SERVICE-ipv4`.
    """
    family = f"IPv{ipaddress.ip_address(address).version}"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-{family.lower()}",
            "namespace": namespace,
            "labels": {
                SLICE_OF: service,
                # Kubernetes' own controllers leave a slice with another manager alone.
                SLICE_MANAGER: names.CONTROLLER,
                names.MANAGED_BY: names.MANAGER,
            },
        },
        "addressType": family,
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod},
            }
        ],
        # The Service's port finds its target by this name.
        "ports": [{"name": "coordinator", "port": port, "protocol": "TCP"}],
    }


def _endpoints(of: Body) -> Body:
    """The same as Endpoints, for servers before v1.21."""
    meta, (endpoint,) = of["metadata"], of["endpoints"]
    addresses = [{"ip": ip, "targetRef": endpoint["targetRef"]} for ip in endpoint["addresses"]]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": meta["labels"][SLICE_OF],
            "namespace": meta["namespace"],
            "labels": {names.MANAGED_BY: names.MANAGER},
        },
        "subsets": [{"addresses": addresses, "ports": of["ports"]}],
    }


async def announce(cluster: Cluster, body: Body, announced: Callable[[], None]) -> None:
    """Keeps the EndpointSlice as given; calls back after each time it has. Never ends."""
    while True:
        try:
            await _announce(cluster, body)
            announced()
        except ApiError as error:
            name = body["metadata"]["name"]
            log.warning("the coordinator's address was not written to %s: %s", name, error)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            await asyncio.sleep(AGAIN_SECONDS)


async def _announce(cluster: Cluster, body: Body) -> None:
    try:
        await _write(cluster, ENDPOINT_SLICES, body)
    except ApiError as error:
        # To a creation, 404: the server knows no such kind. It looks at rights first, and the chart
        # grants none to a kind that its server does not know.
        if error.status not in (403, 404):
            raise
        try:
            await _write(cluster, ENDPOINTS, _endpoints(body))
        except ApiError as older:
            raise error if older.status == 403 else older  # noqa: B904


async def _write(cluster: Cluster, kind: str, body: Body) -> None:
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    try:
        await cluster.patch(kind, namespace, name, body)
    except ApiError as error:
        if error.status != 404:
            raise
        await cluster.create(kind, namespace, body)
