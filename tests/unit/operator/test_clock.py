"""One clock: the API server's. Ours, and those of nodes, may be hours off and change nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from controller_rig import Rig
from hypothesis import given
from hypothesis import strategies as st
from operator_world import START

from shardwise_operator.clock import ClusterClock, FirstSeen
from shardwise_operator.decide.failures import pod_failure
from shardwise_operator.decide.restarts import spared_wait
from shardwise_operator.observe import PodView, pod_view
from shardwise_operator.watch import trimmed

SKEWS = [timedelta(), timedelta(hours=5), timedelta(hours=-5), timedelta(days=4000)]


@given(
    st.floats(-1e8, 1e8),
    st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 5), st.floats(0, 1)), max_size=20),
)
def test_the_servers_time_is_known_to_within_a_second_and_an_answers_way(ours, answers):
    """Whatever our own clock shows, and wherever on its way an answer is dated."""
    mono = [50.0]
    begin = START.timestamp()
    clock = ClusterClock(lambda: mono[0], lambda: begin + ours)
    for pause, way, share in answers:
        sent = mono[0] + pause
        told = datetime.fromtimestamp(begin + sent + way * share, UTC).replace(microsecond=0)
        mono[0] = sent + way
        clock.heard(format_datetime(told, usegmt=True), sent, mono[0])
        assert abs(clock.timestamp() - begin - mono[0]) <= 1.001 + way


@pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT"])
def test_an_answer_without_a_date_changes_nothing(date):
    clock = ClusterClock(lambda: 1.0, lambda: 100.0)
    clock.heard(date, 0.0, 1.0)
    assert clock.now() == datetime.fromtimestamp(100.0, UTC)


def raw(rig: Rig, name: str, **status: Any) -> None:
    rig.cluster.objects["pods", "default", name]["status"] = status


def deleted(rig: Rig) -> list[str]:
    return [name for verb, kind, name in rig.cluster.calls if (verb, kind) == ("delete", "pods")]


def at(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("skew", SKEWS)
async def test_a_bound_pods_age_begins_when_it_is_first_seen(skew):
    rig = Rig()
    await rig.add(workers={"replicas": 1})
    await rig.reconcile()
    bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(START + skew)}
    raw(rig, "digits-0", phase="Pending", conditions=[bound])
    for rig.time in (10.0, 69.0):
        await rig.reconcile()
    assert deleted(rig) == []
    rig.time = 71.0
    await rig.reconcile()
    assert deleted(rig) == ["digits-0"]


@pytest.mark.parametrize("skew", SKEWS)
async def test_a_failure_counts_once_and_is_dated_by_the_cluster_whatever_the_nodes_clock(skew):
    rig = Rig()
    await rig.add(workers={"replicas": 1}, restartPolicy={"maxRestarts": 1, "windowSeconds": 600})
    seen = []
    for rig.time in (0.0, 100.0):
        await rig.reconcile()
        ended = {"exitCode": 137, "finishedAt": at(START + skew)}
        state = {"name": "trainer", "state": {"terminated": ended}}
        raw(rig, "digits-0", phase="Failed", containerStatuses=[state])
        for _ in range(3):
            rig.time += 1.0
            await rig.reconcile()
        seen.append((rig.status["restarts"]["inWindow"], rig.status["lastFailure"]["time"]))
        if rig.status["state"] == "Failed":
            break
    assert seen == [(1, at(START + timedelta(seconds=1))), (2, at(START + timedelta(seconds=101)))]
    assert rig.status["reason"] == "RestartBudgetExceeded"


async def test_a_restart_of_the_operator_keeps_the_time_that_is_noted():
    rig = Rig()
    await rig.add(workers={"replicas": 1})
    await rig.reconcile()
    state = {"name": "trainer", "state": {"terminated": {"exitCode": 137}}}
    raw(rig, "digits-0", phase="Failed", containerStatuses=[state])
    await rig.reconcile()
    first = rig.status["lastFailure"]
    rig.cluster.refuse.clear()
    rig.restart()
    rig.time = 0.0
    await rig.reconcile()
    assert rig.status["lastFailure"] == first


def turned_away(reason: str, **status: Any) -> PodView:
    labels = {"shardwise.dev/index": "0"}
    meta = {"name": "digits-0", "uid": f"uid-{reason}", "labels": labels}
    found = {"phase": "Failed", "reason": reason, "message": "Pod was rejected", **status}
    view = pod_view(trimmed({"metadata": meta, "status": found}))
    assert view is not None
    return view


INVENTED = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "not located"}


@pytest.mark.parametrize(
    "reason",
    ["NodeAffinity", "OutOfcpu", "OutOfpods", "UnexpectedAdmissionError", "TaintToleration",
     "TopologyAffinityError", "NodePorts", "InvalidNodeInfo", "SomethingOfNextYear", "", "Evicted"],
)  # fmt: skip
@pytest.mark.parametrize(
    "containers", [None, {"waiting": {"reason": "ContainerCreating"}}, {"terminated": INVENTED}]
)
def test_a_pod_that_fails_before_any_container_started_costs_no_restart(reason, containers):
    states = [{"name": "trainer", "state": containers}] if containers else None
    failure = pod_failure(turned_away(reason, containerStatuses=states))
    assert (failure.kind, failure.reason) == ("spared", "RejectedByNode")
    assert "turned away before it started" in failure.message
    assert reason in failure.message


@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_a_pod_of_which_anything_ran_was_not_turned_away(kind):
    ended = {"terminated": {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z"}}
    view = turned_away("Error", **{kind: [{"name": "x", "state": ended}]})
    assert not view.turned_away
    assert pod_failure(view).kind == "counted"


def test_rejections_in_a_row_are_answered_more_and_more_slowly():
    assert [spared_wait(n).total_seconds() for n in (0, 1, 2, 3, 4, 5, 99)] == [
        5, 5, 10, 20, 40, 60, 60,
    ]  # fmt: skip
    seen = FirstSeen()
    counts = []
    for reason in ("OutOfcpu", "OutOfcpu", "TaintToleration", "NodePorts"):
        (pod,) = seen.aged([turned_away(reason)], {}, START)
        counts.append(pod.rejections)
    assert counts == [1, 1, 2, 3]
    running = PodView(name="digits-0", uid="new", index=0, phase="Running")
    seen.aged([running], {}, START)
    (pod,) = seen.aged([turned_away("OutOfcpu")], {}, START)
    assert pod.rejections == 1
