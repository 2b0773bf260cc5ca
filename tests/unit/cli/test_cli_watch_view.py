"""What `watch` draws and tells, as functions of what was seen."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import NOW, RECOVERED, ended_pod, event, job, pending_pod, pod

from shardwise.cli.view.pods import expected, grid, worker
from shardwise.cli.view.sight import LOSSES, Sight
from shardwise.cli.view.style import PLAIN
from shardwise.cli.view.watch import fleet, frame, news, progress_line

FRAME = """\
digits  Running  Training · for 5m00s
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━──────────────────────────────────────────  42 %
step 1,234/2,880 · epoch 17 · 1m10s left · loss 0.1234 · 12,346 samples/s

loss        █▅▁  2 → 0.1234
workers     3/4 ready · members 3 · generation 12 · ■ 3 Running · ✗ 1 Failed
            0 ■ ■ ✗ ■
            digits-2 on node-a: exit code 137, OOMKilled
goodput     0.94 · productive 3m08s · waiting 9.9s · recovery 2.1s
checkpoint  step 1200
recoveries  3 (Hung 1, Killed 2)
            ↻ digits-2 Killed at step 1200, went on after 410ms, 2m00s ago
            ↻ digits-1 Hung at step 400, went on after 700ms, 4m00s ago

 2m00s      WorkerLost: digits-2 was killed
"""


def at(step, loss, **status):
    found = job(**status)
    found["status"]["progress"] |= {"step": step, "loss": str(loss)}
    return found


def test_the_picture_of_a_job():
    sight = Sight()
    earlier = copy.deepcopy(RECOVERED)
    earlier["lastRecovery"] = {
        "worker": "digits-1",
        "cause": "Hung",
        "step": 400,
        "seconds": "0.7",
        "time": "2026-01-01T00:56:00Z",
    }
    sight.take_job("ADDED", at(10, 2.0))
    sight.take_job("MODIFIED", at(500, 1.2, **earlier))
    sight.take_job("MODIFIED", at(1234, 0.1234, **RECOVERED))
    for found in (pod(0), pod(1), ended_pod(2, 137, "OOMKilled"), pod(3)):
        sight.take_pod("ADDED", found)
    sight.take_event("ADDED", event("WorkerLost", "digits-2 was killed", type_="Warning"))
    assert "\n".join(frame(sight, NOW, 80, PLAIN)) + "\n" == FRAME


def test_before_the_job_is_there():
    assert frame(Sight(), NOW, 80, PLAIN) == ["waiting for the job"]


def test_a_job_that_waits_says_why_and_shows_who_is_missing():
    sight = Sight()
    found = job(state="Starting", reason="ImagePullFailed", message="pod digits-1: no image")
    found["status"]["progress"] = None
    sight.take_job("ADDED", found)
    sight.take_pod("ADDED", pod(0))
    sight.take_pod("ADDED", pending_pod(1, "ImagePullBackOff", "no such image"))
    lines = frame(sight, NOW, 80, PLAIN)
    assert "  pod digits-1: no image" in lines
    assert "            0 ■ □ · ·" in lines
    assert "            digits-1 on node-b: ImagePullBackOff: no such image" in lines


def test_a_broken_connection_is_told_at_the_foot():
    sight = Sight(trouble="job: the API server cannot be reached; it is tried again")
    sight.take_job("ADDED", job())
    assert frame(sight, NOW, 80, PLAIN)[-1].startswith("job: the API server cannot be reached")


def test_the_loss_goes_on_after_a_step_back_and_begins_anew_with_another_job():
    sight = Sight()
    for step, loss in ((10, 3.0), (20, 2.0), (30, 1.0), (20, 2.1)):
        sight.take_job("MODIFIED", at(step, loss))
    assert sight.losses == [(10, 3.0), (20, 2.1)]
    other = at(5, 9.0)
    other["metadata"]["uid"] = "uid-2"
    sight.take_job("ADDED", other)
    assert sight.losses == [(5, 9.0)]


def test_the_late_end_of_an_earlier_job_of_the_name_is_passed_over():
    sight = Sight()
    other = job()
    other["metadata"]["uid"] = "uid-2"
    sight.take_job("ADDED", other)
    sight.take_job("DELETED", job())
    assert not sight.deleted


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(allow_nan=True)), max_size=200))
def test_steps_of_the_loss_only_grow(points):
    sight = Sight()
    for step, loss in points:
        sight.take_job("MODIFIED", at(step, loss))
    steps = [step for step, _ in sight.losses]
    assert steps == sorted(set(steps))


def test_the_course_of_the_loss_is_bounded():
    sight = Sight()
    for step in range(3 * LOSSES):
        sight.take_job("MODIFIED", at(step, 1.0))
    assert len(sight.losses) <= LOSSES
    assert sight.losses[0][0] == 0
    assert sight.losses[-1][0] == 3 * LOSSES - 1


def test_pods_of_an_earlier_job_of_the_name_are_not_shown():
    sight = Sight()
    sight.take_job("ADDED", job())
    old = pod(0)
    old["metadata"]["labels"]["shardwise.dev/job-uid"] = "uid-0"
    sight.take_pod("ADDED", old)
    assert sight.own_pods() == []
    sight.take_pod("DELETED", old)
    assert sight.pods == {}


@pytest.mark.parametrize(
    ("found", "state", "detail"),
    [
        (pod(0), "Running", ""),
        (pod(0, "Succeeded"), "Succeeded", ""),
        (ended_pod(0, 70), "Failed", "exit code 70"),
        (
            pod(0, "Failed", reason="Evicted", message="disk full"),
            "Failed",
            "Evicted: disk full",
        ),
        (pod(0, "Failed"), "Failed", "no exit code is known"),
        (pod(0, "Pending"), "Pending", ""),
        (pending_pod(0, "ContainerCreating", ""), "Starting", "ContainerCreating"),
        (pending_pod(0, "ErrImagePull", "no"), "Pending", "ErrImagePull: no"),
    ],
)
def test_the_state_of_a_pod(found, state, detail):
    read = worker(found)
    assert (read.state, read.detail) == (state, detail)


def test_a_pod_that_is_being_deleted_and_one_not_ready():
    leaving, starting = pod(0), pod(1)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:59:00Z"
    starting["status"]["containerStatuses"][0]["ready"] = False
    assert [worker(leaving).state, worker(starting).state] == ["Ending", "Starting"]


@given(st.sets(st.integers(0, 300)), st.integers(1, 250))
def test_the_grid_has_a_sign_for_each_index_and_fits(indices, width):
    lines = grid([worker(pod(index)) for index in indices], set(), width, PLAIN)
    assert sum(line.count("■") for line in lines) == len(indices)
    assert all(len(line) <= max(width, 20) for line in lines)


def test_a_replaced_worker_has_an_index_of_its_own():
    found = job()
    found["status"]["workers"]["names"] = ["digits-0", "digits-1", "digits-3", "digits-4"]
    assert expected(found) == {0, 1, 3, 4}
    del found["status"]["workers"]
    assert expected(found) == {0, 1, 2, 3}


def test_news_are_what_changed():
    before = job(state="Starting", reason="WaitingForWorkers", message="2 of 4 are here")
    after = job(**RECOVERED)
    assert news(None, before, NOW) == [
        "digits: Starting (WaitingForWorkers): 2 of 4 are here",
    ]
    assert news(before, after, NOW) == [
        "digits: Running (Training): 4 of 4 workers train",
        "digits: recovered: digits-2 Killed at step 1200, went on after 410ms, 2m00s ago",
        "digits: checkpoint at step 1200",
    ]
    assert news(after, after, NOW) == []
    assert progress_line(after).startswith("digits: 42 % step 1,234/2,880")


def test_a_job_that_nobody_has_looked_at_is_no_news():
    found = job()
    del found["status"]
    assert news(None, found, NOW) == []
    assert progress_line(found) == ""


def test_the_fleet_shows_the_running_first():
    lines = fleet([job("a", state="Failed"), job("b"), job("c", state="Waiting")], NOW, 100, PLAIN)
    assert lines[0] == "3 jobs: 1 Running · 1 Waiting · 1 Failed"
    assert [line.split()[0] for line in lines[3:]] == ["b", "c", "a"]
    assert "━━━━━━━━────────────   42 %" in lines[3]
    assert fleet([], NOW, 100, PLAIN) == ["no jobs"]
