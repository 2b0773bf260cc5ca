"""Jobs that the cluster tests apply, and what is said of every one of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubectl import WAIT_SECONDS, Kubectl

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "manifests" / "examples"
KIND = "optimizationjobs.shardwise.dev"
LOCAL_SECONDS = 900
Job = dict[str, Any]


def example(name: str) -> Job:
    job: Job = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return job


def job(name: str, workers: int = 2, **trainer: Any) -> Job:
    """A short valid job; `trainer` changes its spec.trainer, and None takes a field out."""
    fields = {
        "entrypoint": "shardwise.examples.digits:task",
        "epochs": 2,
        "batchSize": 128,
        "shards": 4,
        "evaluateEveryEpochs": 0,
        **trainer,
    }
    return {
        "apiVersion": "shardwise.dev/v1alpha1",
        "kind": "OptimizationJob",
        "metadata": {"name": name},
        "spec": {
            "trainer": {key: value for key, value in fields.items() if value is not None},
            "workers": {"replicas": workers},
        },
    }


def local_result(manifest: Job, folder: Path, workers: int) -> dict[str, Any]:
    """What `shardwise run` of this machine makes of the same manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(manifest))
    command = [sys.executable, "-m", "shardwise.cli.main", "run", str(file)]
    script = Path(sys.executable).parent / "shardwise"
    if script.exists():
        command[:3] = [str(script)]
    subprocess.run(
        [*command, "--workers", str(workers), "--output", str(folder / "out")],
        check=True,
        capture_output=True,
        timeout=LOCAL_SECONDS,
    )
    result: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text())
    return result


def condition(found: Job, kind: str) -> dict[str, Any]:
    """The condition of this type; empty where there is none."""
    for entry in found.get("status", {}).get("conditions", []):
        if entry["type"] == kind:
            return dict(entry)
    return {}


def state(found: Job) -> str:
    return str(found.get("status", {}).get("state", ""))


def ended(found: Job) -> bool:
    return state(found) in ("Succeeded", "Failed")


def over(found: Job) -> bool:
    """Whether nothing more will come of it."""
    return ended(found) or state(found) == "Invalid"


def wait_job(
    kubectl: Kubectl,
    name: str,
    what: str,
    accept: Callable[[Job], Any],
    seconds: float = WAIT_SECONDS,
) -> Job:
    """The job once `accept` holds for it; fails at once where the job has ended otherwise."""
    return kubectl.wait_for(what, KIND, name, accept, seconds, vain=over)


def wait_ended(kubectl: Kubectl, name: str, seconds: float = WAIT_SECONDS) -> Job:
    return wait_job(kubectl, name, "the job ends", ended, seconds)


def assert_succeeded(found: Job) -> None:
    status = found["status"]
    assert status["state"] == "Succeeded", status
    assert condition(found, "Succeeded")["status"] == "True"
    assert status["progress"]["percent"] == 100
    assert status["progress"]["step"] == status["progress"]["totalSteps"]
    assert status["result"]["weightsSha256"]


def assert_restricted(pod: dict[str, Any], token: bool = False) -> None:
    """The restricted Pod Security Standard, and this project's further promises."""
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert spec.get("automountServiceAccountToken") is token
    assert spec["enableServiceLinks"] is False
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        assert not spec.get(field)
    for volume in spec["volumes"]:
        assert volume.keys() & {"emptyDir", "projected", "configMap", "secret"}, volume
    for container in spec["containers"] + spec.get("initContainers", []):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")
        assert not any("hostPort" in port for port in container.get("ports", []))
