"""The port to the API server on `kubernetes.aio`: plain paths and bodies, each call time-limited.

The package's generated models are not used: they cost memory and time, and drop fields that they
do not know. Counts every call. Decides nothing, and never retries: the work queue does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from shardwise_operator import names, wire
from shardwise_operator.clock import ClusterClock
from shardwise_operator.port import ApiError, Body

log = logging.getLogger(__name__)

CALL_SECONDS = 15.0
WATCH_SECONDS = 300
WATCH_SILENCE_SECONDS = 90.0
"""Bookmarks come about once a minute; a stream that is silent for longer is dead."""

_PREFIXES: Mapping[str, str] = {
    "pods": "/api/v1",
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "secrets": "/api/v1",
    "events": "/api/v1",
    "endpoints": "/api/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    names.PLURAL: f"/apis/{names.GROUP}/{names.VERSION}",
}
USER_AGENT = f"shardwise/{version('shardwise')} (operator)"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"

Count = Callable[[str, str], None]


class UnreadableError(ApiError):
    """The server answered well, and the answer cannot be read."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(0, "Unreadable", message)
        self.data = data


class KubeCluster:
    """See port.Cluster."""

    def __init__(self, client: Any, count: Count, clock: ClusterClock | None = None) -> None:
        self.clock = clock or ClusterClock()
        self._client = client
        self._count = count

    @classmethod
    async def connect(cls, count: Count) -> KubeCluster:
        """With the pod's service account in a cluster, else with KUBECONFIG.

        Raises:
            kubernetes.aio.config.ConfigException: neither is there.
        """
        loader: Any = config  # The package has no annotations worth the name.
        configuration = Configuration()
        # Some clusters' certificates lack extensions that the strictest reading asks for.
        configuration.disable_strict_ssl_verification = True
        if "KUBERNETES_SERVICE_HOST" in os.environ and os.path.exists(SERVICE_ACCOUNT):  # noqa: ASYNC240, PTH110
            loader.load_incluster_config(client_configuration=configuration)
        else:
            await loader.load_kube_config(
                config_file=os.environ.get("KUBECONFIG") or None,
                client_configuration=configuration,
            )
        return cls(ApiClient(configuration), count)

    async def close(self) -> None:
        await self._client.close()

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        return await self._call("get", "GET", _path(kind, namespace, name))

    async def create(
        self, kind: str, namespace: str, body: Body, *, dry_run: bool = False
    ) -> dict[str, Any]:
        # Strict: a field that the server does not know is an error, and not dropped in silence.
        query = {"fieldValidation": "Strict", "dryRun": "All" if dry_run else ""}
        return await self._call("create", "POST", _path(kind, namespace), query=query, body=body)

    async def patch(self, kind: str, namespace: str, name: str, body: Body) -> dict[str, Any]:
        plural, _, subresource = kind.partition("/")
        path = _path(plural, namespace, name) + (f"/{subresource}" if subresource else "")
        return await self._call(
            "patch", "PATCH", path, body=body, content_type="application/merge-patch+json"
        )

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        await self._call("delete", "DELETE", _path(kind, namespace, name), body=options)

    async def list_page(
        self,
        kind: str,
        namespace: str,
        *,
        selector: str = "",
        fields: str = "",
        limit: int,
        continue_: str = "",
    ) -> dict[str, Any]:
        query = {
            "labelSelector": selector,
            "fieldSelector": fields,
            "limit": str(limit),
            "continue": continue_,
        }
        try:
            return await self._call("list", "GET", _path(kind, namespace), query=query)
        except UnreadableError as error:
            if limit > 1:
                raise
            # One object that no parser reads must not hide those behind it.
            log.warning("%s: an object is passed over: %s", kind, error)
            return {"items": [], "metadata": wire.list_end(error.data)}

    async def watch(
        self, kind: str, namespace: str, *, selector: str, resource_version: str
    ) -> AsyncIterator[dict[str, Any]]:
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=10, sock_read=WATCH_SILENCE_SECONDS
        )
        response = await self._send(
            "watch", "GET", _path(kind, namespace), query, None, "", timeout
        )
        try:
            async for line in wire.lines(response.content):
                event = self._event(kind, line)
                if event is not None:
                    yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, "WatchBroken", repr(error)) from error
        finally:
            response.close()

    def _event(self, kind: str, line: bytes) -> dict[str, Any] | None:
        """The event of a line; None for one that cannot be read: the next ones can."""
        try:
            event = wire.read(line)
        except ValueError as error:
            self._count("watch", "unreadable")
            log.warning("%s: an event is passed over: %s", kind, error)
            return None
        return event if isinstance(event, dict) else None

    async def version(self) -> tuple[int, int]:
        """The server's version of Kubernetes; (0, 0) where it does not tell."""
        found = await self._call("get", "GET", "/version")
        digits = [re.match("[0-9]+", str(found.get(part))) for part in ("major", "minor")]
        major, minor = (int(match[0]) if match else 0 for match in digits)
        return major, minor

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience] if audience else []},
        }
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        review = await self._call("create", "POST", path, body=body)
        return review.get("status") or {}

    async def review_access(self, user: Body, path: str) -> dict[str, Any]:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.get("username"),
                **{key: user[key] for key in ("uid", "groups", "extra") if user.get(key)},
                "nonResourceAttributes": {"path": path, "verb": "get"},
            },
        }
        resource = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        review = await self._call("create", "POST", resource, body=body)
        return review.get("status") or {}

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        response = await self._send(verb, method, path, query, body, content_type, timeout)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiError(0, "Unreadable", f"{method} {path}: {error!r}") from error
        try:
            answer = wire.read(data)
        except ValueError as error:
            raise UnreadableError(f"{method} {path}: {error}", data) from error
        if not isinstance(answer, dict):
            raise UnreadableError(f"{method} {path}: the answer is no object", data)
        return answer

    async def _send(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Body | None,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        given = {key: value for key, value in (query or {}).items() if value}
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        if content_type:
            headers["Content-Type"] = content_type
        sent = time.monotonic()
        try:
            await self._client.update_params_for_auth(
                headers, [], ["BearerToken"], path, method, body
            )
            answer = await self._client.rest_client.request(
                method,
                self._client.configuration.host + path + (f"?{urlencode(given)}" if given else ""),
                headers=headers,
                body=body,
                _request_timeout=limits,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._count(verb, "0")
            raise ApiError(0, "Unreachable", f"{method} {path}: {error!r}") from error
        response: aiohttp.ClientResponse = answer.response
        self._count(verb, str(response.status))
        self.clock.heard(response.headers.get("Date"), sent, time.monotonic())
        if response.status >= 300:
            raise await _error(response)
        return response


def _path(kind: str, namespace: str, name: str = "") -> str:
    middle = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    end = f"/{quote(name, safe='')}" if name else ""
    return f"{_PREFIXES[kind]}{middle}/{kind}{end}"


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    try:
        async with asyncio.timeout(CALL_SECONDS):
            said = wire.read(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        said = {}
    finally:
        response.release()
    if not isinstance(said, dict):
        said = {}
    return ApiError(
        response.status,
        str(said.get("reason") or response.reason or ""),
        str(said.get("message") or response.reason or ""),
        retry_after=_seconds(response.headers.get("Retry-After")),
    )


def _seconds(text: str | None) -> float:
    """Of the header Retry-After; 0 where there is none. Dates are not read: no API server writes
    one."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 7 else 0.0
