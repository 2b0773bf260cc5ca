"""The informer on jobs, over HTTP: one job that nobody can read hides none of the others."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from shardwise_operator.jobs import MAX_BYTES, TOO_LARGE, JobStore
from shardwise_operator.kube import KubeCluster
from shardwise_operator.watch_jobs import PAGE, JobInformer


def job(name: str, spec: str = "{}", version: int = 5) -> str:
    meta = {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": str(version)}
    meta_text = json.dumps({**meta, "annotations": {"a": "b"}})
    return f'{{"metadata":{meta_text},"spec":{spec}}}'


DEEP = '{{"template":{{"spec":{}1{}}}}}'.format('{"a":' * 3000, "}" * 3000)
UNREADABLE = '{{"template":{{"spec":{}1{}}}}}'.format("[" * 300 + "[]," * 60_000, "]" * 300)


@asynccontextmanager
async def informed(jobs: list[str], events: list[str], names: set[str]):
    """The store, once it has these jobs and the events have been sent."""
    calls: Counter[str] = Counter()

    async def answer(request):
        if "watch" in request.query:
            calls["watches"] += 1
            response = web.StreamResponse()
            await response.prepare(request)
            for event in events:
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
        host = str(server.make_url("")).rstrip("/")
        counts: Counter[tuple[str, str]] = Counter()
        cluster = KubeCluster(
            ApiClient(Configuration(host=host)), lambda verb, code: counts.update([(verb, code)])
        )
        store, reached = JobStore(), asyncio.Event()

        def changed(key):
            if {name for _, name in store.all_keys()} == names:
                reached.set()

        informer = JobInformer(cluster, "", store, changed, pause=0.01)
        task = asyncio.create_task(informer.run())
        try:
            async with asyncio.timeout(10):
                await reached.wait()
            assert not task.done()
            yield store, calls, counts
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await cluster.close()


async def test_a_deep_job_is_known_by_its_name_and_so_are_the_others():
    async with informed([job("a"), job("deep", DEEP), job("b")], [], {"a", "deep", "b"}) as found:
        store, calls, _ = found
        assert calls["lists"] == 1
        assert store.get(("ns", "deep"))["spec"]["template"]["spec"]["a"]


async def test_a_job_that_nobody_can_read_hides_none_of_the_others():
    jobs = [*(job(f"j{n}") for n in range(PAGE + 3)), job("bad", UNREADABLE), job("last")]
    names = {f"j{n}" for n in range(PAGE + 3)} | {"last"}
    async with informed(jobs, [], names) as (store, calls, _):
        assert store.get(("ns", "bad")) is None
        assert calls["lists"] == 1 + 1 + 5  # A page, the page that cannot be read, its jobs.


async def test_events_that_cannot_be_read_are_passed_over_and_counted():
    events = [
        '{{"type":"ADDED","object":{}}}'.format(job("deep", DEEP)),
        '{{"type":"ADDED","object":{}}}'.format(job("bad", UNREADABLE)),
        "no JSON",
        "[1]",
        '{{"type":"ADDED","object":{}}}'.format(job("large", '{"x":"%s"}' % ("x" * 300_000))),
        '{{"type":"DELETED","object":{}}}'.format(job("a")),
        '{{"type":"ADDED","object":{}}}'.format(job("last")),
    ]
    names = {"deep", "large", "last"}
    async with informed([job("a")], events, names) as (store, calls, counts):
        assert calls["watches"] == 1  # It never broke.
        assert counts["watch", "unreadable"] == 2
        assert len(store.get(("ns", "large"))["spec"]["x"]) == 300_000


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
