"""kopf's watch of jobs, over HTTP: a job that nobody can read does not end it, nor hide others."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

import kopf
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from shardwise_operator import handlers, names
from shardwise_operator.guarded import Feed
from shardwise_operator.handlers import PAGE
from shardwise_operator.jobs import MAX_BYTES, TOO_LARGE, JobStore
from shardwise_operator.kube import USER_AGENT


def job(name: str, spec: str = "{}", version: int = 5) -> str:
    meta = {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": str(version)}
    meta_text = json.dumps({**meta, "annotations": {"a": "b"}})
    return f'{{"metadata":{meta_text},"spec":{spec}}}'


DEEP = '{{"template":{{"spec":{}1{}}}}}'.format('{"a":' * 3000, "}" * 3000)
UNREADABLE = '{{"template":{{"spec":{}1{}}}}}'.format("[" * 300 + "[]," * 120_000, "]" * 300)


def resources(group: str, plural: str, kind: str, *, namespaced: bool) -> dict[str, object]:
    verbs = ["get", "list", "watch", "patch"]
    singular = kind.lower()
    resource = {
        "name": plural,
        "singularName": singular,
        "namespaced": namespaced,
        "kind": kind,
        "verbs": verbs,
    }
    return {"kind": "APIResourceList", "groupVersion": group, "resources": [resource]}


def group(name: str, version: str) -> dict[str, object]:
    served = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "preferredVersion": served, "versions": [served]}


CRDS = ("apiextensions.k8s.io", "v1")
JOBS = (names.GROUP, names.VERSION)
DISCOVERY = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "groups": [group(*CRDS), group(*JOBS)]},
    "/api/v1": resources("v1", "namespaces", "Namespace", namespaced=False),
    "/apis/{}/{}".format(*CRDS): resources(
        "/".join(CRDS), "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
    ),
    "/apis/{}/{}".format(*JOBS): resources(
        "/".join(JOBS), names.PLURAL, names.KIND, namespaced=True
    ),
}
"""What kopf asks for before it watches."""


@asynccontextmanager
async def informed(monkeypatch, tmp_path, jobs: list[str], events: list[str], wanted: set[str]):
    """The store, once kopf has brought these jobs; its calls, and what was counted."""
    calls: Counter[str] = Counter()
    again = asyncio.Event()

    async def answer(request):
        assert request.headers["User-Agent"] == USER_AGENT
        if request.path in DISCOVERY:
            return web.json_response(DISCOVERY[request.path])
        if not request.path.endswith(names.PLURAL):
            return web.json_response({"code": 404}, status=404)
        if "watch" in request.query:
            calls["watches"] += 1
            if calls["watches"] == 2:
                again.set()
            response = web.StreamResponse()
            await response.prepare(request)
            for event in events if calls["watches"] == 1 else ():
                await response.write(event.encode() + b"\n")
            await asyncio.sleep(20)
            return response
        calls["lists"] += 1
        first, limit = int(request.query.get("continue") or 0), int(request.query["limit"])
        rest = str(first + limit) if first + limit < len(jobs) else ""
        items = ",".join(jobs[first : first + limit])
        meta = json.dumps({"continue": rest, "resourceVersion": "5"}, separators=(",", ":"))
        return web.Response(
            text=f'{{"items":[{items}],"metadata":{meta}}}', content_type="application/json"
        )

    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    async with TestServer(app) as server:
        file = tmp_path / "kubeconfig"
        url = str(server.make_url("")).rstrip("/")
        file.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "c", "cluster": {"server": url}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "c",
                }
            )
        )
        monkeypatch.setenv("KUBECONFIG", str(file))
        counts: Counter[tuple[str, str]] = Counter()
        store, reached = JobStore(), asyncio.Event()
        feed = Feed(lambda verb, code: counts.update([(verb, code)]), 1)

        def changed(key):
            if {name for _, name in store.all_keys()} == wanted:
                reached.set()

        settings = handlers.settings()
        existing = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(store, changed, feed),
            settings=settings,
            standalone=True,
            clusterwide=True,
            stop_flag=asyncio.Event(),
        )
        running = asyncio.create_task(kopf.run_tasks(tasks, ignored={*existing}))
        try:
            async with asyncio.timeout(20):
                await feed.synced.wait()
                await reached.wait()
            assert not running.done()
            yield store, calls, counts, again
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_deep_job_is_known_by_its_name_and_so_are_the_others(monkeypatch, tmp_path):
    jobs = [job("a"), job("deep", DEEP), job("b")]
    async with informed(monkeypatch, tmp_path, jobs, [], {"a", "deep", "b"}) as found:
        store, calls, *_ = found
        assert calls["lists"] == 1
        assert store.get(("ns", "deep"))["spec"]["template"]["spec"]["a"]


async def test_a_job_that_takes_long_to_read_hides_none_of_the_others(monkeypatch, tmp_path):
    jobs = [*(job(f"j{n}") for n in range(PAGE + 3)), job("bad", UNREADABLE), job("last")]
    wanted = {f"j{n}" for n in range(PAGE + 3)} | {"bad", "last"}
    async with informed(monkeypatch, tmp_path, jobs, [], wanted) as (store, calls, *_):
        assert store.get(("ns", "bad"))["metadata"]["uid"] == "u-bad"
        assert calls["lists"] == 2


async def test_events_that_cannot_be_read_are_passed_over_and_counted(monkeypatch, tmp_path):
    events = [
        '{{"type":"ADDED","object":{}}}'.format(job("deep", DEEP)),
        '{{"type":"ADDED","object":{}}}'.format(job("bad", UNREADABLE)),
        "no JSON",
        "[1]",
        '{{"type":"ADDED","object":{}}}'.format(job("large", '{"x":"%s"}' % ("x" * 300_000))),
        '{{"type":"DELETED","object":{}}}'.format(job("a")),
        '{{"type":"ADDED","object":{}}}'.format(job("last")),
    ]
    wanted = {"deep", "large", "last"}
    async with informed(monkeypatch, tmp_path, [job("a")], events, wanted) as found:
        store, calls, counts, _ = found
        assert calls["watches"] == 1  # It never broke.
        assert counts["watch", "unreadable"] == 3
        assert len(store.get(("ns", "large"))["spec"]["x"]) == 300_000


async def test_a_watch_that_the_server_breaks_off_is_listed_again(monkeypatch, tmp_path):
    status = {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd"}
    events = [json.dumps({"type": "ERROR", "object": status})]
    async with informed(monkeypatch, tmp_path, [job("a")], events, {"a"}) as (_, calls, _, again):
        async with asyncio.timeout(20):
            await again.wait()
        assert calls["lists"] >= 2


def test_what_one_job_keeps_in_memory_is_bounded():
    store = JobStore()
    store.put(json.loads(job("a", '{"x":"%s"}' % ("x" * MAX_BYTES))))
    kept = store.get(("ns", "a"))
    assert kept["spec"] == {}
    assert kept[TOO_LARGE] > MAX_BYTES
    assert "annotations" not in kept["metadata"]
    store.put(json.loads(job("a", '{"x":1}', version=6)))
    assert TOO_LARGE not in store.get(("ns", "a"))
    assert store.get(("ns", "a"))["spec"] == {"x": 1}
