"""The informer: pages, events, bookmarks, and what it does when a watch breaks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from fake_cluster import FakeCluster

from shardwise_operator import names
from shardwise_operator.port import ApiError
from shardwise_operator.watch import PodInformer, PodInformers, trimmed


def raw_pod(name, job="digits", phase="Running", **meta):
    labels = {names.JOB_NAME: job, names.JOB_UID: "u", names.INDEX: "0", "other": "x"}
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "resourceVersion": "7",
            "labels": labels,
            "managedFields": ["much"],
            **meta,
        },
        "spec": {"nodeName": "node1", "containers": ["much"]},
        "status": {"phase": phase},
    }


@asynccontextmanager
async def informing(cluster, until, **options):
    changes, reached = [], asyncio.Event()

    def changed(namespace, job):
        changes.append((namespace, job))
        if until(informer, changes):
            reached.set()

    informer = PodInformer(cluster, "", changed, pause=0.001, **options)
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(reached.wait(), 5)
        yield informer, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_pages_are_listed(monkeypatch):
    monkeypatch.setattr(PodInformer, "page", 2)
    cluster = FakeCluster()
    for n in range(5):
        await cluster.create("pods", "ns", raw_pod(f"p{n}"))
    async with informing(cluster, lambda _, c: len(c) == 5) as (informer, _):
        assert len(informer.pods("ns", "digits")) == 5
        assert informer.pod("ns", "p3")["metadata"]["uid"] == "uid-p3"
        assert informer.pods("ns", "other") == ()
    lists = [call for call in cluster.calls if call[0] == "list"]
    assert lists == [("list", "pods", names.POD_SELECTOR)] * 3


async def test_events_are_taken_in_and_the_watch_goes_on_from_the_bookmark():
    cluster = FakeCluster()
    cluster.streams = [
        [
            {"type": "ADDED", "object": raw_pod("a")},
            {"type": "MODIFIED", "object": raw_pod("a")},  # Nothing new in what we keep.
            {"type": "ADDED", "object": raw_pod("b")},
            {"type": "DELETED", "object": raw_pod("a")},
            {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "99"}}},
        ],
        [{"type": "MODIFIED", "object": raw_pod("b", phase="Failed")}],
    ]
    async with informing(cluster, lambda _, c: len(c) == 4) as (informer, changes):
        assert changes == [("ns", "digits")] * 4
        assert informer.pod("ns", "b")["status"]["phase"] == "Failed"
        assert informer.pod("ns", "a") is None
    watches = [call[2] for call in cluster.calls if call[0] == "watch"]
    assert watches[1] == "99"


async def test_an_expired_watch_lists_again_and_notices_what_was_missed():
    cluster = FakeCluster()
    await cluster.create("pods", "ns", raw_pod("kept"))
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    cluster.streams = [[{"type": "ADDED", "object": raw_pod("ghost")}, gone]]
    async with informing(cluster, lambda i, c: len(c) == 3) as (informer, _):
        assert informer.pod("ns", "ghost") is None
        assert informer.pod("ns", "kept") is not None


async def test_a_server_in_trouble_is_tried_again_and_the_age_tells():
    cluster, time, tried = FakeCluster(), [0.0], asyncio.Event()

    async def trouble(kind, namespace, **_):
        cluster.calls.append(("list", kind, namespace))
        if len(cluster.calls) == 3:
            tried.set()
        raise ApiError(0, "Unreachable", "refused")

    well, cluster.list_page = cluster.list_page, trouble
    informer = PodInformer(cluster, "", lambda *_: None, clock=lambda: time[0], pause=0.001)
    task = asyncio.create_task(informer.run())
    await asyncio.wait_for(tried.wait(), 5)
    time[0] = 400.0
    assert PodInformers({"": informer}).age == 400.0
    assert not informer.synced.is_set()
    cluster.list_page = well
    await asyncio.wait_for(informer.synced.wait(), 5)
    assert informer.age == 0.0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_is_not_read_is_not_kept():
    kept = trimmed(raw_pod("a"))
    assert "managedFields" not in kept["metadata"]
    assert "other" not in kept["metadata"]["labels"]
    assert kept["spec"] == {"nodeName": "node1"}


def test_pods_are_looked_up_in_their_namespaces_informer():
    cluster = FakeCluster()
    informers = PodInformers({"ns": PodInformer(cluster, "ns", lambda *_: None)})
    assert informers.pods("ns", "digits") == ()
    assert informers.pods("elsewhere", "digits") == ()
    assert informers.pod("elsewhere", "p") is None
