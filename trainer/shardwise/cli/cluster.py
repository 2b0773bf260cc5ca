"""The port to the API server: the only module that talks to one, on the `kubernetes` package.

That package takes a third of a second to import, so it is imported when a command connects. Only
its reading of kubeconfig files (contexts, certificates, exec plug-ins, proxies) and its HTTP
client are used, with plain paths and bodies: the generated models drop fields that they do not
know. Each call has a time limit; nothing is retried here.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from shardwise.cli.errors import ApiError
from shardwise.cli.names import FIELD_MANAGER, GROUP, PLURAL, USER_AGENT, VERSION

CONNECT_SECONDS = 5.0
CALL_SECONDS = 30.0
WATCH_SECONDS = 240
SILENCE_SECONDS = 90.0
"""Bookmarks come about once a minute: a watch that is silent for longer is dead."""
PAGE = 500

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
JSON, MERGE, APPLY = (
    "application/json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)

_PREFIXES: Mapping[str, str] = {
    PLURAL: f"/apis/{GROUP}/{VERSION}",
    "deployments": "/apis/apps/v1",
}
Object = dict[str, Any]


def path(kind: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The path of a kind, an object or a part of it; no namespace: all of them."""
    parts = [_PREFIXES.get(kind, "/api/v1")]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts += [kind, *filter(None, [quote(name, safe=""), subresource])]
    return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One API server, and the namespace that a command works in."""

    client: Any
    namespace: str
    server: str
    context: str = ""
    impersonated: tuple[tuple[str, str], ...] = ()
    """Headers of every call: whom the kubeconfig acts as."""

    @classmethod
    def connect(
        cls, kubeconfig: Path | None, context: str | None, namespace: str | None
    ) -> Cluster:
        """By --kubeconfig, KUBECONFIG, ~/.kube/config, else a pod's service account.

        Raises CliError where none is there or it cannot be used. Sends nothing.
        """
        import urllib3
        from kubernetes.client import ApiClient, Configuration

        from shardwise.cli import kubeconfig as files
        from shardwise.cli.credentials import in_cluster, sign_as

        # It warns of more connections at once than it keeps, which `logs` of many workers makes.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # A kubeconfig that skips the check of the certificate says so on purpose.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        configuration = Configuration()
        configuration.retries = False  # A server that is away is told of at once.
        found = files.find(kubeconfig)
        if found is None:
            own, context, headers = in_cluster(configuration), "", []
        else:
            entry = files.read(found, context)
            headers = files.impersonation(entry)
            sign_as(configuration, entry)
            own, context = entry.namespace, entry.context
        return cls(
            ApiClient(configuration),
            namespace or own or "default",
            str(configuration.host),
            context,
            tuple(headers),
        )

    def close(self) -> None:
        """Closes the idle connections; streams end with their threads."""
        self.client.close()
        self.client.rest_client.close()

    def get(
        self, kind: str, name: str, *, namespace: str | None = None, table: bool = False
    ) -> Object:
        return self.call(
            "GET", path(kind, namespace or self.namespace, name), accept=_accept(table)
        )

    def list(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        selector: str = "",
        fields: str = "",
        table: bool = False,
    ) -> Object:
        """The whole list, fetched in pages; namespace "" means all. A Table where asked for."""
        query = {"labelSelector": selector, "fieldSelector": fields, "limit": str(PAGE)}
        place = path(kind, self.namespace if namespace is None else namespace)
        page = whole = self.call("GET", place, query=query, accept=_accept(table))
        key = "rows" if whole.get("kind") == "Table" else "items"
        whole[key] = whole.get(key) or []
        while more := (page.get("metadata") or {}).get("continue"):
            page = self.call("GET", place, query={**query, "continue": more}, accept=_accept(table))
            whole[key] += page.get(key) or []
        return whole

    def create(
        self, kind: str, body: Object, *, namespace: str | None = None, dry_run: bool = False
    ) -> Object:
        query = {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
        return self.call("POST", path(kind, namespace or self.namespace), query=query, body=body)

    def apply(
        self, kind: str, name: str, body: Object, *, namespace: str, force: bool, dry_run: bool
    ) -> Object:
        """Server-side apply."""
        query = {
            "fieldManager": FIELD_MANAGER,
            "force": str(force).lower(),
            **({"dryRun": "All"} if dry_run else {}),
        }
        place = path(kind, namespace, name)
        return self.call("PATCH", place, query=query, body=json.dumps(body), content=APPLY)

    def patch(self, kind: str, name: str, body: Object, *, subresource: str = "") -> Object:
        place = path(kind, self.namespace, name, subresource)
        return self.call(
            "PATCH", place, query={"fieldManager": FIELD_MANAGER}, body=body, content=MERGE
        )

    def delete(self, kind: str, name: str) -> Object:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        return self.call("DELETE", path(kind, self.namespace, name), body=options)

    def watch(
        self, kind: str, *, namespace: str, selector: str, fields: str, version: str
    ) -> Iterator[Object]:
        """Changes since the resource version, until the server ends the stream."""
        query = {
            "watch": "1",
            "labelSelector": selector,
            "fieldSelector": fields,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        for line in self.lines(path(kind, namespace), query, SILENCE_SECONDS):
            yield json.loads(line)

    def lines(self, place: str, query: Mapping[str, str], silence_seconds: float) -> Iterator[str]:
        """The response's lines as they come. Raises ApiError where the stream breaks."""
        response = self._send("GET", place, query, None, JSON, "*/*", silence_seconds)
        with contextlib.closing(response.response):
            try:
                for line in _split(response.response.stream(amt=None)):
                    yield line.decode("utf-8", "replace")
            except Exception as error:
                raise _unreachable(self.server, error) from error

    def allowed(self, verb: str, resource: str, namespace: str, group: str = "") -> bool:
        """Whether the user may, by a SelfSubjectAccessReview; resource may be `pods/log`."""
        resource, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "subresource": subresource}},
        }
        place = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool((self.call("POST", place, body=review).get("status") or {}).get("allowed"))

    def call(
        self,
        method: str,
        place: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | str | None = None,
        content: str = JSON,
        accept: str = JSON,
    ) -> Object:
        """One call and its JSON answer. Raises ApiError."""
        response = self._send(method, place, query or {}, body, content, accept, CALL_SECONDS)
        try:
            answer = json.loads(response.read())
        except ValueError as error:
            raise ApiError(response.status, "NoJson", f"{place}: the answer is no JSON") from error
        return answer if isinstance(answer, dict) else {}

    def _send(
        self,
        method: str,
        place: str,
        query: Mapping[str, str],
        body: Object | str | None,
        content: str,
        accept: str,
        read_seconds: float,
    ) -> Any:
        client = self.client
        from urllib3 import HTTPHeaderDict

        headers = HTTPHeaderDict(
            {"Accept": accept, "User-Agent": USER_AGENT, "Content-Type": content}
        )
        for name, value in self.impersonated:  # Of a name several may stand: groups.
            headers.add(name, value)
        client.update_params_for_auth(headers, [], ["BearerToken"], place, method, body)
        given = urlencode({key: value for key, value in query.items() if value})
        url = f"{client.configuration.host}{place}" + (f"?{given}" if given else "")
        try:
            response = client.call_api(
                method, url, headers, body, _request_timeout=(CONNECT_SECONDS, read_seconds)
            )
            if response.status < 400:
                return response
            text = response.read()
        except Exception as error:
            raise _unreachable(self.server, error) from error
        raise _refused(response.status, text, method, place)


def _accept(table: bool) -> str:
    return TABLE if table else JSON


def _refused(status: int, text: bytes, method: str, place: str) -> ApiError:
    try:
        told = json.loads(text)
        reason, message = str(told.get("reason") or ""), str(told.get("message") or "")
    except (ValueError, AttributeError):
        reason, message = "", text.decode("utf-8", "replace").strip()[:200]
    remedy = {
        401: "; log in anew, or name another --context",
        403: "; `shardwise doctor` lists the rights that are missing",
    }.get(status, "")
    message = message or f"{method} {place}: HTTP {status}"
    return ApiError(status, reason or f"Http{status}", message, remedy)


def _unreachable(server: str, error: Exception) -> ApiError:
    return ApiError(
        0,
        "Unreachable",
        f"the API server {server} cannot be reached: {_innermost(error)}; check the network, "
        "--context and --kubeconfig",
    )


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "reason", "") or error)
    # urllib3 begins its messages with the connection object's repr.
    return text.split(": ", 1)[-1].strip() or type(error).__name__


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a stream as lines without their ends; empty lines are left out."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest
