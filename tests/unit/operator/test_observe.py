"""What is read of a pod: dead nodes, disruptions, and the end of one that tells nothing."""

from __future__ import annotations

import pytest

from shardwise_operator import names
from shardwise_operator.observe import parse_time, pod_view
from shardwise_operator.watch import trimmed

TIME = "2026-01-01T00:00:07Z"


def pod(conditions=(), phase="Running", **status):
    labels = {names.INDEX: "1", names.JOB_UID: "u"}
    meta = {"name": "digits-1", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    found = [{"lastTransitionTime": TIME, **condition} for condition in conditions]
    raw = {"metadata": meta, "status": {"phase": phase, "conditions": found, **status}}
    view = pod_view(trimmed(raw))
    assert view is not None
    return view


def condition(type_, status, reason=""):
    return {"type": type_, "status": status, "reason": reason}


@pytest.mark.parametrize(
    ("conditions", "lost"),
    [
        ([condition("Ready", "True"), condition("ContainersReady", "True")], False),
        ([condition("Ready", "False"), condition("ContainersReady", "True")], True),
        ([condition("Ready", "Unknown"), condition("ContainersReady", "True")], True),
        ([condition("Ready", "False"), condition("ContainersReady", "False")], False),
        (
            [
                condition("Ready", "False", "ReadinessGatesNotReady"),
                condition("ContainersReady", "True"),
            ],
            False,
        ),
        ([], False),
    ],
)
def test_a_silent_node_shows_in_its_pods(conditions, lost):
    assert pod(conditions).node_lost is lost


def test_a_pod_is_given_to_a_node_until_its_kubelet_takes_note_of_it():
    given = [condition("PodScheduled", "True")]
    assert pod(given, phase="Pending").given
    assert pod(given, phase="Pending", startTime=TIME).given is False
    assert pod([condition("PodScheduled", "False")], phase="Pending").given is False
    assert pod(given, phase="Running").given is False
    assert pod(phase="Pending").given is False


def test_the_node_controllers_word_is_taken():
    assert pod(reason="NodeLost").node_lost


def test_a_disruption_is_read():
    given = [condition("DisruptionTarget", "True", "DeletionByTaintManager")]
    assert pod(given).disrupted == "DeletionByTaintManager"
    assert pod([condition("DisruptionTarget", "False", "x")]).disrupted == ""


def test_creation_times_survive_the_trimming():
    assert pod().created_at == parse_time("2026-01-01T00:00:00Z")
