"""Events: one object for a thing that happens, counted up when it happens again."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, replace
from datetime import timedelta

from fake_cluster import FakeCluster
from operator_world import START, manifest

from shardwise_operator import events as events_module
from shardwise_operator.actions import EmitEvent
from shardwise_operator.events import EventRecorder, event_manifest
from shardwise_operator.observe import job_view
from shardwise_operator.port import ApiError

JOB = job_view(manifest())
EVENT = EmitEvent(type="Warning", reason="Unschedulable", message="no node", action="SetState")


async def recorded(cluster, *events):
    counts = Counter()
    recorder = EventRecorder(cluster, lambda outcome: counts.update([outcome]), now=lambda: START)
    task = asyncio.create_task(recorder.run())
    for event in events:
        recorder.record(JOB, event)
    await asyncio.wait_for(recorder.flush(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return counts


def stored(cluster):
    return [body for (kind, _, _), body in cluster.objects.items() if kind == "events"]


async def test_the_same_thing_is_one_event_counted_up():
    cluster = FakeCluster()
    other = EmitEvent(
        type="Normal", reason="Training", message="the workers train", action="SetState"
    )
    counts = await recorded(cluster, EVENT, EVENT, EVENT, other)
    assert sorted(body["count"] for body in stored(cluster)) == [1, 3]
    assert counts == {"sent": 2, "repeated": 2}
    assert await recorded(cluster, EVENT) == {"repeated": 1}  # By a later process.
    assert len(stored(cluster)) == 2


async def test_trouble_with_events_is_no_trouble():
    cluster = FakeCluster()
    cluster.refuse["create", "events"] = ApiError(403, "Forbidden", "no")
    assert await recorded(cluster, EVENT) == {"dropped": 1}


async def test_an_expired_event_is_made_anew():
    cluster = FakeCluster()
    counts = Counter()
    recorder = EventRecorder(cluster, lambda outcome: counts.update([outcome]))
    task = asyncio.create_task(recorder.run())
    recorder.record(JOB, EVENT)
    await recorder.flush()
    cluster.objects.clear()
    recorder.record(JOB, EVENT)
    recorder.record(JOB, EVENT)
    await asyncio.wait_for(recorder.flush(), 5)
    assert [body["count"] for body in stored(cluster)] == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_too_many_are_dropped_not_waited_for(monkeypatch):
    monkeypatch.setattr(events_module, "WAITING", 1)
    counts = Counter()
    recorder = EventRecorder(FakeCluster(), lambda outcome: counts.update([outcome]))
    recorder.record(JOB, EVENT)
    recorder.record(JOB, EVENT)
    assert counts == {"dropped": 1}


async def test_of_one_reason_a_job_gets_some_at_once_and_then_few():
    counts, cluster, now = Counter(), FakeCluster(), [START]
    recorder = EventRecorder(cluster, lambda outcome: counts.update([outcome]), now=lambda: now[0])
    task = asyncio.create_task(recorder.run())

    def recover(times):
        for _ in range(times):
            sent = sum(counts.values())
            recorder.record(
                JOB,
                EmitEvent(type="Normal", reason="Recovered", message=f"{sent}", action="Recover"),
            )

    recover(25)
    assert counts == {"dropped": 25 - events_module.BURST}
    # Another reason, and another job, are not held up by it.
    recorder.record(JOB, EVENT)
    recorder.record(replace(JOB, uid="other"), EmitEvent(**asdict(EVENT) | {"reason": "Recovered"}))
    now[0] += timedelta(seconds=2 * events_module.REFILL_SECONDS)
    recover(5)
    await asyncio.wait_for(recorder.flush(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert counts["sent"] + counts["repeated"] == events_module.BURST + 2 + 2
    assert counts["dropped"] == 25 - events_module.BURST + 3


def test_a_long_message_is_cut_to_what_the_api_takes():
    long = EmitEvent(
        type="Warning",
        reason="X",
        message="y\N{GREEK SMALL LETTER THETA}" * 5000,
        action="SetState",
    )
    assert 1020 < len(event_manifest(JOB, long, START, "pod")["message"].encode()) <= 1024


async def test_an_event_names_who_did_what():
    cluster = FakeCluster()
    await recorded(cluster, EVENT)
    (body,) = stored(cluster)
    assert body["reportingComponent"] == "operator.shardwise.dev"
    assert body["reportingInstance"] and body["action"] == "SetState"
