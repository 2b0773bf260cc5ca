"""The port on `kubernetes.aio` against a real HTTP server: paths, bodies, errors, watches."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from importlib.metadata import version

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from shardwise_operator.__main__ import main
from shardwise_operator.kube import KubeCluster
from shardwise_operator.port import ApiError

PODS = "/api/v1/namespaces/ns/pods"
STATUS = "/apis/shardwise.dev/v1alpha1/namespaces/ns/optimizationjobs/digits/status"


@asynccontextmanager
async def served():
    seen, counts = [], Counter()

    async def answer(request):
        text = await request.text()
        body = json.loads(text) if text else None
        seen.append((request.method, request.path, dict(request.query), body, request.headers))
        if request.path.endswith("/taken"):
            said = {"kind": "Status", "reason": "NotFound", "message": "no such pod"}
            return web.json_response(said, status=404)
        if request.path.endswith("/broken"):
            return web.Response(status=502, text="<html>")
        if request.query.get("watch"):
            lines = [{"type": "ADDED", "object": {"n": 1}}, {"type": "BOOKMARK", "object": {}}]
            return web.Response(body="".join(json.dumps(line) + "\n" for line in lines))
        if request.path.endswith("tokenreviews"):
            return web.json_response({"status": {"authenticated": True}}, status=201)
        return web.json_response({"metadata": {"name": "x"}})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    async with TestServer(app) as server:
        configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
        configuration.api_key["BearerToken"] = "bearer abc"
        cluster = KubeCluster(
            ApiClient(configuration), lambda verb, code: counts.update([(verb, code)])
        )
        try:
            yield cluster, seen, counts
        finally:
            await cluster.close()


async def test_each_call_has_its_path_body_and_count():
    async with served() as (cluster, seen, counts):
        await cluster.get("pods", "ns", "x")
        await cluster.create("pods", "ns", {"metadata": {"name": "x"}})
        await cluster.patch("optimizationjobs/status", "ns", "digits", {"status": {"a": None}})
        await cluster.delete("pods", "ns", "x", "uid-1")
        await cluster.list_page("pods", "", selector="a=b", limit=5)
        assert await cluster.review_token("secret", "me") == {"authenticated": True}
    assert [call[:2] for call in seen] == [
        ("GET", f"{PODS}/x"),
        ("POST", PODS),
        ("PATCH", STATUS),
        ("DELETE", f"{PODS}/x"),
        ("GET", "/api/v1/pods"),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
    ]
    assert seen[0][4]["Authorization"] == "bearer abc"
    assert seen[2][3] == {"status": {"a": None}}
    assert seen[2][4]["Content-Type"] == "application/merge-patch+json"
    assert seen[3][3]["preconditions"] == {"uid": "uid-1"}
    assert seen[4][2] == {"labelSelector": "a=b", "limit": "5"}
    assert seen[5][3]["spec"]["audiences"] == ["me"]
    assert counts["create", "200"] == 1
    assert counts["create", "201"] == 1


async def test_errors_carry_what_the_server_said():
    async with served() as (cluster, _, counts):
        with pytest.raises(ApiError) as missing:
            await cluster.get("pods", "ns", "taken")
        with pytest.raises(ApiError) as broken:
            await cluster.get("pods", "ns", "broken")
    assert (missing.value.status, missing.value.reason) == (404, "NotFound")
    assert missing.value.message == "no such pod"
    assert broken.value.status == 502
    assert counts == {("get", "404"): 1, ("get", "502"): 1}


async def test_a_watch_gives_its_lines_and_ends_with_the_stream():
    async with served() as (cluster, seen, _):
        stream = cluster.watch("pods", "ns", selector="a=b", resource_version="7")
        assert [event["type"] async for event in stream] == ["ADDED", "BOOKMARK"]
    query = seen[0][2]
    assert query["resourceVersion"] == "7"
    assert query["allowWatchBookmarks"] == "true"


async def test_no_server_is_an_error_of_status_zero():
    counts = Counter()
    client = ApiClient(Configuration(host="http://127.0.0.1:1"))
    cluster = KubeCluster(client, lambda verb, code: counts.update([(verb, code)]))
    with pytest.raises(ApiError) as unreachable:
        await cluster.get("pods", "ns", "x")
    await cluster.close()
    assert unreachable.value.status == 0
    assert counts == {("get", "0"): 1}


def test_settings_that_cannot_be_used_end_the_process_with_2(monkeypatch, capsys):
    monkeypatch.setenv("SHARDWISE_METRICS_PORT", "many")
    assert main() == 2
    assert "SHARDWISE_METRICS_PORT" in capsys.readouterr().err


async def test_every_call_says_who_calls():
    async with served() as (cluster, seen, _):
        await cluster.get("pods", "ns", "x")
        await cluster.review_token("t", "a")
    agents = {headers["User-Agent"] for *_, headers in seen}
    assert agents == {f"shardwise/{version('shardwise')} (operator)"}
