"""What `describe` and `explain` print, word for word, and that any status can be described."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import (
    FAILURE,
    NOW,
    RECOVERED,
    condition,
    ended_pod,
    event,
    job,
    pending_pod,
    pod,
    unschedulable_pod,
)

from shardwise.cli.view.describe import describe
from shardwise.cli.view.explain import explain
from shardwise.cli.view.style import PLAIN, Paint

PODS = [
    pod(0),
    pod(1),
    ended_pod(2, 137, "OOMKilled"),
    unschedulable_pod(3, "0/2 nodes are available: 2 Insufficient memory."),
]
EVENTS = [
    event("WorkerLost", "digits-2 was killed", type_="Warning", count=2),
    event("Started", "training began", "2026-01-01T00:56:00Z"),
]

DESCRIBED = """\
Name:         digits
Namespace:    default
State:        Running · Training
Message:      4 of 4 workers train
Created:      10m00s ago
              started 5m00s ago
Entrypoint:   shardwise.examples.digits:task
Training:     40 epochs · batches of 128 · 8 shards · seed 7
Parameters:   hidden=128, learning_rate=0.2
Progress:     ━━━━━━━━━━────────────── 42 %
              step 1,234/2,880 · epoch 17 · 1m10s left · loss 0.1234 · 12,346 samples/s \
· told 2s ago
Workers:      3/4 ready · min 1 · max 8 · members 3 · generation 12
              ■ 2 Running · □ 1 Pending · ✗ 1 Failed
  RANK   POD        NODE     STATE     RESTARTS   AGE     DETAIL
  0      digits-0   node-a   Running   0          5m00s
  1      digits-1   node-b   Running   0          5m00s
  2      digits-2   node-a   Failed    0          5m00s   exit code 137, OOMKilled
  3      digits-3   -        Pending   0          5m00s   Unschedulable: 0/2 nodes are available: \
2 Insufficient memory.
Recoveries:   3 (Hung 1, Killed 2)
              last: digits-2 Killed at step 1200, went on after 410ms, 2m00s ago
Restarts:     3 · 2 count now
Goodput:      0.94
  KIND         TIME    SHARE
  productive   3m08s   94.0%   ━━━━━━━━━━━━━━━━━━╸
  waiting      9.9s    5.0%    ╸
  recovery     2.1s    1.1%
Checkpoint:   step 1200 · 3m00s ago · 12.3 MiB · took 400ms
Last failure: UserCodeFailed · 1m30s ago
              pod digits-2 · rank 2 · node node-b · exit code 70
              worker 2 (pod digits-2 on node-b): ValueError: no such file
  │ Traceback (most recent call last):
  │   line 3
  │ ValueError: no such file
Conditions:
  TYPE       STATUS   REASON     SINCE   MESSAGE
  Accepted   True     Valid      4m00s   the spec is valid
  Running    True     Training   4m00s   4 of 4 workers train
  Failed     False    Training   4m00s   4 of 4 workers train
Events:
  AGE     TYPE      REASON       COUNT   MESSAGE
  4m00s   Normal    Started      1       training began
  2m00s   Warning   WorkerLost   2       digits-2 was killed
"""


def test_a_job_in_the_middle_of_its_life():
    found = job(**RECOVERED, lastFailure=FAILURE)
    assert "\n".join(describe(found, PODS, EVENTS, NOW, PLAIN)) + "\n" == DESCRIBED


def test_a_job_that_nobody_has_looked_at():
    found = job()
    del found["status"]
    lines = describe(found, [], [], NOW, PLAIN)
    assert lines[2] == "State:        Unknown"
    assert "Workers:      0/4 ready" in lines
    assert not any(line.startswith(("Progress", "Conditions", "Events")) for line in lines)


def test_a_job_that_succeeded():
    result = {
        "steps": 2880,
        "seconds": "12.5",
        "samplesPerSecond": "29491.2",
        "metrics": [{"name": "accuracy", "value": "0.98"}],
        "weightsSha256": "a" * 64,
        "path": "digits/weights.safetensors",
    }
    found = job(
        state="Succeeded", result=result, completionTime="2026-01-01T00:59:00Z", reason="Completed"
    )
    found["spec"]["output"] = {"volume": {"persistentVolumeClaim": {"claimName": "results"}}}
    lines = describe(found, [], [], NOW, PLAIN)
    start = next(n for n, line in enumerate(lines) if line.startswith("Result:"))
    assert lines[start : start + 4] == [
        "Result:       2880 steps · in 12s · 29,491 samples/s",
        "              accuracy 0.98",
        "              digits/weights.safetensors on the volume: persistentVolumeClaim",
        f"              weightsSha256 {'a' * 64}",
    ]
    assert "              ended after 4m00s" in lines


COMPRESSION = """\
Compression:  the guard took step int8 back
  STEP      METRIC            SIZE        PARAMETERS   NONZEROS   MACS     LATENCY    NOTE
  trained   accuracy 0.9750   102.5 KiB   26,122       26,122     25,856   0.052 ms
  prune     accuracy 0.9700   25.2 KiB    26,122       5,437      25,856
  int8                        9.0 KiB                                                 taken back
Artifacts:
  NAME                WHERE                              SIZE      SHA256
  model.safetensors   /output/digits/model.safetensors   8.7 KiB   b
"""


def test_a_compression_is_a_table_and_its_files():
    counts = {"parameters": 26_122, "macs": 25_856}
    rows = [
        {
            "name": "trained",
            "metric": "accuracy 0.9750",
            "bytes": 104_976,
            "nonzeros": 26_122,
            "latencyMilliseconds": "0.052",
            **counts,
        },
        {
            "name": "prune",
            "metric": "accuracy 0.9700",
            "bytes": 25_820,
            "nonzeros": 5_437,
            **counts,
        },
        {"name": "int8", "bytes": 9_200, "note": "taken\nback"},
    ]
    file = {"name": "model.safetensors", "bytes": 8_957, "sha256": "b"}
    file["path"] = f"/output/digits/{file['name']}"
    found = job(compression={"rows": rows, "undone": "int8"}, artifacts=[file])
    lines = describe(found, [], [], NOW, PLAIN)
    start = next(n for n, line in enumerate(lines) if line.startswith("Compression:"))
    assert "\n".join(lines[start : start + 8]) + "\n" == COMPRESSION


def test_the_stage_after_the_training_is_told():
    found = job()
    found["status"]["progress"]["stage"] = "compression: prune"
    lines = describe(found, [], [], NOW, PLAIN)
    assert any("compression: prune · step 1,234/2,880" in line for line in lines)


def test_restarts_tell_how_many_are_left():
    found = job(**RECOVERED)
    found["spec"]["restartPolicy"] = {"maxRestarts": 10, "windowSeconds": 3600}
    assert "Restarts:     3 · 2 of 10 allowed in 1h00m" in describe(found, [], [], NOW, PLAIN)


def test_a_checkpoint_that_failed_says_so():
    found = job(checkpoint={"step": 100, "error": "no space left"})
    assert "              the last attempt failed: no space left" in describe(
        found, [], [], NOW, PLAIN
    )


def test_hundreds_of_workers_are_a_grid_and_those_in_trouble():
    pods = [pod(index) for index in range(200)]
    pods[77] = ended_pod(77, 139)
    found = job()
    found["status"]["workers"]["names"] = [f"digits-{index}" for index in range(200)]
    lines = describe(found, pods, [], NOW, PLAIN)
    assert sum("■ ■" in line for line in lines) == 5
    rows = [line.split() for line in lines if line.strip().startswith("77 ")]
    assert rows[0][:4] == ["77", "digits-77", "node-b", "Failed"]


FIELDS = """progress workers conditions checkpoint restarts recoveriesByCause lastRecovery
goodputSeconds lastFailure result compression artifacts goodput recoveries state"""
statuses = st.dictionaries(
    st.sampled_from(sorted(FIELDS.split())),
    st.none()
    | st.text(max_size=4)
    | st.integers()
    | st.lists(st.dictionaries(st.sampled_from(["kind", "seconds", "type"]), st.text(max_size=3)))
    | st.dictionaries(
        st.sampled_from(["step", "names", "percent", "seconds", "bytes", "summary"]),
        st.none() | st.integers(-5, 5) | st.text(max_size=4) | st.lists(st.text(max_size=3)),
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(statuses)
def test_no_status_is_too_odd_to_be_told_of(status):
    """Another version's operator may have written it."""
    found = job()
    found["status"] = status
    describe(found, PODS, EVENTS, NOW, Paint(True))
    explain(found, PODS, EVENTS, NOW, width=80, paint=Paint(True))


EXPLAINED = """\
digits is Starting: Unschedulable

  2 of 4 pods find no node (digits-2: 0/2 nodes are available: 2 Insufficient
  memory.); free or add nodes, or ask for less in spec.template or
  spec.workers.replicas

Workers in trouble:
  POD        STATE     WHY
  digits-3   Pending   Unschedulable: 0/2 nodes are available: 2 Insufficient memory.

What happened:
  WHEN        EVENT           WHAT
  2m00s ago   Unschedulable   2 of 4 pods find no node

Next:
  kubectl describe pod digits-3
"""
NO_NODE = (
    "2 of 4 pods find no node (digits-2: 0/2 nodes are available: 2 Insufficient memory.); free or "
    "add nodes, or ask for less in spec.template or spec.workers.replicas"
)


def explained(found, pods=(), events=(), width=80, program="shardwise"):
    return explain(found, pods, events, NOW, width=width, paint=PLAIN, program=program)


def test_why_a_job_waits_is_told_in_the_operators_words():
    found = job(state="Starting", reason="Unschedulable", message=NO_NODE, progress=None)
    events = [event("Unschedulable", "2 of 4 pods find no node")]
    assert "\n".join(explained(found, [pod(0), PODS[3]], events)) + "\n" == EXPLAINED


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("UserCodeFailed", "kubectl shardwise logs digits --tail 50"),
        ("ImagePullFailed", "kubectl describe pod digits-1"),
        ("Suspended", "kubectl shardwise resume digits"),
        ("QuotaExceeded", "kubectl describe resourcequota"),
    ],
)
def test_the_next_command_follows_from_the_reason(reason, command):
    pods = [pod(0), pending_pod(1, "ImagePullBackOff", "no such image")]
    lines = explained(job(state="Waiting", reason=reason), pods, program="kubectl shardwise")
    assert lines[-2:] == ["Next:", f"  {command}"]


def test_events_of_one_second_are_in_the_order_in_which_they_were_written():
    first, second = event("Suspending", "a"), event("Suspended", "b")
    first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"] = "99", "100"
    lines = explained(job(state="Suspended", reason="Suspended"), [], [second, first])
    assert [line.split()[2] for line in lines if "ago" in line] == ["Suspending", "Suspended"]


def test_a_suspended_job_is_not_blamed_for_standing_still():
    found = job(state="Suspended", reason="Suspended", message="spec.suspend is true")
    found["status"]["conditions"].append(
        condition("Progressing", "False", "Suspending", "the workers leave")
    )
    assert "Also:" not in explained(found)
    stalled = job(reason="Stalled", message="no step")
    stalled["status"]["conditions"].append(condition("Progressing", "False", "Stalled", "stands"))
    assert "Also:" in explained(stalled)


def test_the_pod_that_is_named_next_is_the_one_in_trouble():
    pods = [pod(0, "Pending"), pending_pod(1, "ErrImagePull", "no such image")]
    lines = explained(job(state="Waiting", reason="ImagePullFailed"), pods)
    assert lines[-1] == "  kubectl describe pod digits-1"


def test_what_was_said_above_is_not_said_again_and_no_pod_is_named_that_is_not_there():
    found = job(state="Waiting", reason="ContainerConfigError", message="pod digits-0: forbidden")
    lines = explained(found, [], [event("ContainerConfigError", "pod digits-0: forbidden")])
    assert "  2m00s ago   ContainerConfigError   as above" in lines
    assert lines[-1] == "  shardwise describe digits"


def test_a_failure_is_told_with_the_end_of_its_log():
    found = job(
        state="Failed", reason="UserCodeFailed", message=FAILURE["message"], lastFailure=FAILURE
    )
    lines = explained(found)
    assert lines[0] == "digits is Failed: UserCodeFailed"
    assert "  │ ValueError: no such file" in lines
    assert sum(FAILURE["message"] in line for line in lines) == 1


def test_conditions_that_are_not_as_they_should_be_are_told_beside_the_reason():
    found = job()
    found["status"]["conditions"] += [
        condition("Checkpointed", "False", "CheckpointFailed", "no space left; enlarge the volume"),
        condition("Degraded", "False", "AllWorkers", "4 of 4"),
    ]
    lines = explained(found)
    also = lines[lines.index("Also:") + 1 :]
    assert also[0].strip().startswith("Checkpointed is False (CheckpointFailed): no space left")
    assert not any("Degraded" in line for line in lines)


def test_a_job_without_an_operator_sends_to_the_doctor():
    found = job()
    del found["status"]
    text = "\n".join(explained(found))
    assert "The operator has not looked at this job (generation 1, seen 0)" in text
    assert "`shardwise doctor` tells." in text


def test_a_change_that_the_operator_has_not_seen():
    found = job()
    found["metadata"]["generation"] = 2
    assert "has not looked at the last change of its spec" in "\n".join(explained(found, width=200))


def test_a_new_job_is_given_time():
    found = job()
    del found["status"]
    found["metadata"]["creationTimestamp"] = "2026-01-01T00:59:55Z"
    assert explained(found)[2] == "  The operator has not looked at this job yet; it is 5s old."


def test_a_job_of_another_controller():
    found = job()
    found["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
    assert "spec.managedBy is kueue.x-k8s.io/multikueue" in "\n".join(explained(found, width=200))
