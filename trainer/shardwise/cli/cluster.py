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
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from shardwise.cli.errors import ApiError, CliError
from shardwise.cli.names import FIELD_MANAGER, GROUP, PLURAL, VERSION

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

    @classmethod
    def connect(
        cls, kubeconfig: Path | None, context: str | None, namespace: str | None
    ) -> Cluster:
        """By --kubeconfig, KUBECONFIG, ~/.kube/config, else a pod's service account.

        Raises CliError where none is there or it cannot be used. Sends nothing.
        """
        import kubernetes.config
        import urllib3
        import yaml
        from kubernetes.client import ApiClient, Configuration

        # It warns of more connections at once than it keeps, which `logs` of many workers makes.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # A kubeconfig that skips the check of the certificate says so on purpose.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        config: Any = kubernetes.config  # The package has no annotations worth the name.
        configuration = Configuration()
        configuration.retries = False  # A server that is away is told of at once.
        named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG")
        file = named or str(Path.home() / ".kube" / "config")
        own_namespace = None
        try:
            if not named and not Path(file).exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=configuration)
                own_namespace = _service_account_namespace()
            else:
                contexts, active = config.list_kube_config_contexts(file)
                chosen = _chosen(contexts, active, context, file)
                context = str(chosen["name"])
                own_namespace = (chosen.get("context") or {}).get("namespace")
                config.load_kube_config(
                    file, context, client_configuration=configuration, persist_config=False
                )
        except (config.ConfigException, yaml.YAMLError, OSError, LookupError, TypeError) as error:
            raise CliError(
                f"no cluster: {file}: {error}; name a kubeconfig with --kubeconfig or KUBECONFIG"
            ) from error
        return cls(
            ApiClient(configuration),
            namespace or own_namespace or "default",
            str(configuration.host),
            context or "",
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
        headers = {"Accept": accept, "User-Agent": FIELD_MANAGER, "Content-Type": content}
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


def _chosen(contexts: Any, active: Any, wanted: str | None, file: str) -> Any:
    if not wanted:
        return active
    for context in contexts:
        if context["name"] == wanted:
            return context
    names = ", ".join(sorted(context["name"] for context in contexts))
    raise CliError(f"--context: {file} has no context {wanted!r}; it has {names}")


def _service_account_namespace() -> str | None:
    file = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return file.read_text().strip() if file.exists() else None
