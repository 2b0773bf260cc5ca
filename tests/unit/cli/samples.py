"""Objects as the API server hands them out, for the tests of the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 1, 0, 0, tzinfo=UTC)


def manifest(name: str = "digits", **spec: Any) -> Object:
    return {
        "apiVersion": "shardwise.dev/v1alpha1",
        "kind": "OptimizationJob",
        "metadata": {"name": name},
        "spec": {
            "trainer": {
                "entrypoint": "shardwise.examples.digits:task",
                "epochs": 40,
                "batchSize": 128,
                "shards": 8,
                "seed": 7,
                "parameters": {"hidden": 128, "learning_rate": "0.2"},
            },
            "workers": {"replicas": 4},
            **spec,
        },
    }


def job(name: str = "digits", state: str = "Running", **status: Any) -> Object:
    """A job that trains, as the operator describes it."""
    found = manifest(name)
    found["metadata"] |= {
        "namespace": "default",
        "uid": "uid-1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:50:00Z",
    }
    found["status"] = {
        "observedGeneration": 1,
        "state": state,
        "reason": "Training",
        "message": "4 of 4 workers train",
        "startTime": "2026-01-01T00:55:00Z",
        "progress": {
            "step": 1234,
            "totalSteps": 2880,
            "epoch": 17,
            "percent": 42,
            "estimatedRemainingSeconds": 70,
            "estimatedRemaining": "1m10s",
            "samplesPerSecond": "12345.6",
            "loss": "0.1234",
            "lastUpdateTime": "2026-01-01T00:59:58Z",
        },
        "workers": {
            "desired": 4,
            "ready": 3,
            "min": 1,
            "max": 8,
            "generation": 12,
            "members": 3,
            "summary": "3/4",
            "names": [f"{name}-{index}" for index in range(4)],
        },
        "conditions": [
            condition("Accepted", "True", "Valid", "the spec is valid"),
            condition("Running", "True", "Training", "4 of 4 workers train"),
            condition("Failed", "False", "Training", "4 of 4 workers train"),
        ],
        **status,
    }
    return found


def task(number: int, state: str = "Succeeded", **fields: Any) -> Object:
    """A row of status.tasks; its accuracy grows with the number."""
    row: Object = {
        "name": f"task-{number}",
        "state": state,
        "parameters": [
            {"name": "hidden", "value": str(32 * (number + 1))},
            {"name": "learning_rate", "value": "0.1"},
        ],
        "step": 240,
        "totalSteps": 240,
        "workers": 1,
        "seconds": "20.4",
    }
    if state in ("Succeeded", "Stopped"):
        row["metrics"] = [{"name": "accuracy", "value": f"0.{90 + number}"}]
        row["weightsSha256"] = f"{number:064x}"
    return row | fields


def pool(state: str = "Running", **tasks: Any) -> Object:
    """A job with ten tasks, as the operator describes it."""
    found = job("sweep", state=state)
    found["spec"]["tasks"] = {"objectives": [{"metric": "accuracy", "direction": "Maximize"}]}
    found["status"]["tasks"] = {
        "total": 10,
        "pending": 3,
        "running": 2,
        "succeeded": 3,
        "stopped": 1,
        "failed": 1,
        "summary": "5/10",
        "utilization": "0.953",
        "best": task(3),
        "items": [
            task(5, "Running", step=60),
            task(6, "Running", step=0, totalSteps=None, workers=2),
            task(4, "Failed", reason="UserCodeFailed", message="ValueError: no such\nfile"),
            task(2),
            task(1),
            task(0, "Stopped", step=48),
        ],
        **tasks,
    }
    return found


def condition(type_: str, status: str, reason: str, message: str) -> Object:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:56:00Z",
        "observedGeneration": 1,
    }


RECOVERED: Object = {
    "recoveries": 3,
    "recoveriesByCause": [
        {"cause": "Hung", "count": 1},
        {"cause": "Joined", "count": 2},
        {"cause": "Killed", "count": 2},
    ],
    "lastRecovery": {
        "worker": "digits-2",
        "cause": "Killed",
        "step": 1200,
        "seconds": "0.41",
        "time": "2026-01-01T00:58:00Z",
    },
    "restarts": {"total": 3, "inWindow": 2},
    "goodput": "0.94",
    "goodputSeconds": [
        {"kind": "productive", "seconds": "188.0"},
        {"kind": "recovery", "seconds": "2.1"},
        {"kind": "waiting", "seconds": "9.9"},
        {"kind": "retried", "seconds": "0"},
    ],
    "checkpoint": {
        "step": 1200,
        "time": "2026-01-01T00:57:00Z",
        "bytes": 12_900_000,
        "seconds": "0.4",
    },
}
FAILURE: Object = {
    "pod": "digits-2",
    "rank": 2,
    "node": "node-b",
    "exitCode": 70,
    "reason": "UserCodeFailed",
    "message": "worker 2 (pod digits-2 on node-b): ValueError: no such file",
    "time": "2026-01-01T00:58:30Z",
    "logTail": "Traceback (most recent call last):\n  line 3\nValueError: no such file",
}


def pod(index: int, phase: str = "Running", job: str = "digits", **status: Any) -> Object:
    running = {"name": "trainer", "ready": True, "restartCount": 0, "state": {"running": {}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job}-{index}",
            "namespace": "default",
            "uid": f"pod-{job}-{index}",
            "creationTimestamp": "2026-01-01T00:55:00Z",
            "labels": {
                "shardwise.dev/job-name": job,
                "shardwise.dev/job-uid": "uid-1",
                "shardwise.dev/index": str(index),
            },
        },
        "spec": {"nodeName": f"node-{'ab'[index % 2]}"},
        "status": {
            "phase": phase,
            "containerStatuses": [running] if phase == "Running" else [],
            **status,
        },
    }


def ended_pod(index: int, code: int, reason: str = "Error") -> Object:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    status = {"name": "trainer", "ready": False, "restartCount": 0, "state": state}
    return pod(index, "Failed", containerStatuses=[status])


def pending_pod(index: int, reason: str, message: str) -> Object:
    waiting = {"reason": reason, "message": message}
    status = {"name": "trainer", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    return pod(index, "Pending", containerStatuses=[status])


def unschedulable_pod(index: int, message: str) -> Object:
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    found = pod(index, "Pending", conditions=[scheduled])
    del found["spec"]["nodeName"]
    return found


def event(
    reason: str,
    message: str,
    time: str = "2026-01-01T00:58:00Z",
    type_: str = "Normal",
    count: int = 1,
) -> Object:
    return {
        "metadata": {"name": f"digits.{reason.lower()}.{time[14:19]}", "namespace": "default"},
        "involvedObject": {"kind": "OptimizationJob", "name": "digits", "uid": "uid-1"},
        "type": type_,
        "reason": reason,
        "message": message,
        "count": count,
        "firstTimestamp": time,
        "lastTimestamp": time,
    }
