"""A small API server for the tests of the command line: real HTTP, so the real client is used.

It knows objects of any kind, labels and field selectors, pages, Tables, watches, server-side
apply, merge patches, the scale subresource, logs, access reviews. `say` makes a path answer
whatever a test wants.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from shardwise.api.crd import COLUMNS, definition

Object = dict[str, Any]
WAIT_SECONDS = 20.0
JOBS = "optimizationjobs"


class Api:
    """The state behind the server. Thread-safe; tests change it as an operator would."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.version = 0
        self.oldest = 0
        """Watches from before this resource version are 410 Gone."""
        self.page = 500
        self.logs: dict[str, list[str]] = {}
        self.log_ended: set[str] = set()
        self.denied: set[tuple[str, str]] = set()
        """(verb, resource) that the user may not."""
        self.said: dict[str, tuple[int, Any]] = {}
        self.calls: list[tuple[str, str, dict[str, str], Any]] = []
        self.stopped = False
        self.say("/version", {"major": "1", "minor": "30", "gitVersion": "v1.30.1"})
        crd = (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/optimizationjobs.shardwise.dev"
        )
        self.say(crd, definition(cel=True))

    def say(self, path: str, answer: Any, status: int = 200) -> None:
        self.said[path] = (status, answer)

    def refuse(self, path: str, status: int, reason: str, message: str) -> None:
        self.say(path, {"kind": "Status", "reason": reason, "message": message}, status)

    def put(self, plural: str, found: Object) -> Object:
        """Creates or replaces an object, as anyone may."""
        with self.changed:
            meta = found.setdefault("metadata", {})
            meta.setdefault("namespace", "default")
            key = (plural, meta["namespace"], meta["name"])
            before = self.objects.get(key)
            self.version += 1
            meta.setdefault("uid", before["metadata"]["uid"] if before else f"uid-{self.version}")
            meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            meta["resourceVersion"] = str(self.version)
            same = before is not None and before.get("spec") == found.get("spec")
            old = before["metadata"].get("generation", 1) if before else 0
            meta["generation"] = old if same else old + 1
            self.objects[key] = copy.deepcopy(found)
            kind = "MODIFIED" if before else "ADDED"
            self.history.append((self.version, kind, plural, copy.deepcopy(found)))
            self.changed.notify_all()
            return copy.deepcopy(found)

    def update(self, name: str, **status: Any) -> None:
        """Merges into a job's status."""
        job = copy.deepcopy(self.objects[JOBS, "default", name])
        job["status"] = merge(job.get("status") or {}, status)
        self.put(JOBS, job)

    def remove(self, plural: str, namespace: str, name: str) -> Object | None:
        with self.changed:
            found = self.objects.pop((plural, namespace, name), None)
            if found is not None:
                self.version += 1
                found["metadata"]["resourceVersion"] = str(self.version)
                self.history.append((self.version, "DELETED", plural, found))
                self.changed.notify_all()
            return found

    def write_log(self, pod: str, *lines: str) -> None:
        with self.changed:
            self.logs.setdefault(pod, []).extend(lines)
            self.changed.notify_all()

    def end_log(self, pod: str) -> None:
        with self.changed:
            self.log_ended.add(pod)
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def job(self, name: str) -> Object:
        return self.objects[JOBS, "default", name]

    def sent(self, method: str) -> list[tuple[str, dict[str, str], Any]]:
        return [call[1:] for call in self.calls if call[0] == method]


SECONDS = 20.0
"""For what a test waits for."""


def wait_for_call(api: Api, path_end: str, **query: str) -> None:
    """Until a command has made such a call."""
    met = threading.Event()
    while not met.wait(0.01):
        if any(
            path.endswith(path_end) and query.items() <= asked.items()
            for _, path, asked, _ in list(api.calls)
        ):
            return


def merge(old: Any, new: Any) -> Any:
    """RFC 7386."""
    if not isinstance(new, dict):
        return new
    found = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), value)
    return found


def matches(found: Object, selector: str, fields: str) -> bool:
    labels = found["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        key, _, value = part.partition("=")
        if labels.get(key) != value:
            return False
    for part in filter(None, fields.split(",")):
        path, _, value = part.partition("=")
        if str(_at(found, path)) != value:
            return False
    return True


def _at(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def as_table(found: list[Object], more: str = "") -> Object:
    columns = [{"name": "Name", "type": "string", "priority": 0}, *COLUMNS]
    rows = []
    for item in found:
        cells = [_at(item, str(column["jsonPath"]).lstrip(".")) for column in COLUMNS]
        rows.append(
            {"cells": [item["metadata"]["name"], *cells], "object": {"metadata": item["metadata"]}}
        )
    meta = {"resourceVersion": "1", **({"continue": more} if more else {})}
    return {"kind": "Table", "metadata": meta, "columnDefinitions": columns, "rows": rows}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: Api

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.api.calls.append((self.command, url.path, query, body))
        if url.path in self.api.said:
            status, answer = self.api.said[url.path]
            self.answer(status, answer)
            return
        if url.path.endswith("selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked["subresource"])))
            allowed = (asked["verb"], resource) not in self.api.denied
            self.answer(201, {"status": {"allowed": allowed}})
            return
        parts = url.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[:1] == ["namespaces"] and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name, part = (*parts, "", "", "")[:3]
        try:
            self.serve(plural, namespace, name, part, query, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def serve(
        self, plural: str, namespace: str, name: str, part: str, query: dict[str, str], body: Any
    ) -> None:
        if part == "log":
            self.stream(self.log_lines(name, query))
        elif self.command == "GET" and query.get("watch"):
            self.watch(plural, namespace, query)
        elif self.command == "GET" and not name:
            self.list(plural, namespace, query)
        elif self.command == "POST":
            self.create(plural, namespace, body)
        elif self.command == "PATCH" and self.headers["Content-Type"].endswith("apply-patch+yaml"):
            self.apply(plural, namespace, name, query, body)
        else:
            found = self.api.objects.get((plural, namespace, name))
            if found is None:
                self.refuse(404, "NotFound", f'{plural} "{name}" not found')
            elif self.command == "DELETE":
                self.answer(200, self.api.remove(plural, namespace, name))
            elif self.command == "PATCH":
                self.answer(200, self.patched(plural, found, part, body))
            elif "as=Table" in self.headers["Accept"]:
                self.answer(200, as_table([found]))
            else:
                self.answer(200, found)

    def patched(self, plural: str, found: Object, part: str, body: Any) -> Object:
        if part == "scale":
            body = {"spec": {"workers": {"replicas": body["spec"]["replicas"]}}}
        return self.api.put(plural, merge(copy.deepcopy(found), body))

    def create(self, plural: str, namespace: str, body: Any) -> None:
        name = body["metadata"]["name"]
        if (plural, namespace, name) in self.api.objects:
            self.refuse(409, "AlreadyExists", f'{plural} "{name}" already exists')
        else:
            self.answer(201, self.api.put(plural, body))

    def apply(
        self, plural: str, namespace: str, name: str, query: dict[str, str], body: Any
    ) -> None:
        before = self.api.objects.get((plural, namespace, name))
        owner = (before or {}).get("metadata", {}).get("annotations", {}).get("owned-by")
        if owner and query.get("force") != "true":
            self.refuse(409, "Conflict", f'conflict with "{owner}": .spec.workers.replicas')
            return
        whole = merge(copy.deepcopy(before or {}), body)
        if query.get("dryRun"):
            whole["metadata"].setdefault("generation", 1)
            self.answer(200, whole)
            return
        self.answer(200 if before else 201, self.api.put(plural, whole))

    def list(self, plural: str, namespace: str, query: dict[str, str]) -> None:
        with self.api.changed:
            found = [
                item
                for (kind, place, _), item in sorted(self.api.objects.items())
                if kind == plural
                and namespace in ("", place)
                and matches(item, query.get("labelSelector", ""), query.get("fieldSelector", ""))
            ]
            version = str(self.api.version)
        start = int(query.get("continue") or 0)
        end = start + min(int(query.get("limit") or 500), self.api.page)
        more = str(end) if end < len(found) else ""
        if "as=Table" in self.headers["Accept"]:
            self.answer(200, as_table(found[start:end], more))
            return
        meta = {"resourceVersion": version, **({"continue": more} if more else {})}
        # As the real one: items of a list have no apiVersion and no kind.
        items = [
            {k: v for k, v in item.items() if k not in ("apiVersion", "kind")}
            for item in found[start:end]
        ]
        self.answer(200, {"kind": "List", "metadata": meta, "items": items})

    def watch(self, plural: str, namespace: str, query: dict[str, str]) -> None:
        since = int(query.get("resourceVersion") or 0)
        if since < self.api.oldest:
            gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
            self.stream(iter([json.dumps({"type": "ERROR", "object": gone})]))
            return

        def events() -> Iterator[str]:
            place = since
            while True:
                with self.api.changed:
                    while self.api.version <= place and not self.api.stopped:
                        self.api.changed.wait(WAIT_SECONDS)
                    if self.api.stopped:
                        return
                    news = [entry for entry in self.api.history if entry[0] > place]
                    place = self.api.version
                for version, kind, changed, item in news:
                    fits = matches(
                        item, query.get("labelSelector", ""), query.get("fieldSelector", "")
                    )
                    if (
                        changed == plural
                        and namespace in ("", item["metadata"]["namespace"])
                        and fits
                    ):
                        yield json.dumps({"type": kind, "object": item})
                    else:
                        mark = {"metadata": {"resourceVersion": str(version)}}
                        yield json.dumps({"type": "BOOKMARK", "object": mark})

        self.stream(events())

    def log_lines(self, pod: str, query: dict[str, str]) -> Iterator[str]:
        told = list(self.api.logs.get(pod, []))
        tail = query.get("tailLines")
        yield from told[len(told) - int(tail) :] if tail is not None else told
        place = len(told)
        while query.get("follow") == "true":
            with self.api.changed:
                while (
                    len(self.api.logs.get(pod, [])) == place
                    and pod not in self.api.log_ended
                    and not self.api.stopped
                ):
                    self.api.changed.wait(WAIT_SECONDS)
                more = self.api.logs.get(pod, [])[place:]
                place += len(more)
                over = self.api.stopped or pod in self.api.log_ended
            yield from more
            if over:
                return

    def stream(self, lines: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            data = f"{line}\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def refuse(self, status: int, reason: str, message: str) -> None:
        self.answer(status, {"kind": "Status", "reason": reason, "message": message})

    def answer(self, status: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Serves an Api on a free port of the loopback."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, api: Api) -> None:
        super().__init__(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
        self.api = api
        self.url = f"http://127.0.0.1:{self.server_port}"
