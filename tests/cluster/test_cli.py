"""The command line against a real API server and real jobs, also as kubectl's plug-in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jobs import KIND, Job, job, wait_ended, wait_job
from kubectl import Kubectl
from tools import tool

SECONDS = 240.0


class Shardwise:
    """`shardwise` in one namespace."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(kubectl.kubeconfig),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    def run(self, *arguments: str, code: int = 0, input: str | None = None) -> str:
        """Standard output; fails where the exit code is another."""
        command = [sys.executable, "-m", "shardwise.cli.main", *arguments]
        if "doctor" not in arguments and "-A" not in arguments:
            command += ["-n", self.kubectl.namespace]
        done = subprocess.run(
            command,
            input=input,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=self.environment,
            check=False,
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if code in (0, 1, 3) else done.stderr

    def submit(self, manifest: Job, *arguments: str, code: int = 0) -> str:
        return self.run("submit", "-", *arguments, code=code, input=yaml.safe_dump(manifest))


@pytest.fixture
def shardwise(namespace: Kubectl) -> Shardwise:
    return Shardwise(namespace)


def test_a_job_from_submit_to_delete(namespace: Kubectl, shardwise: Shardwise) -> None:
    told = shardwise.submit(job("digits", workers=2, epochs=6), "--watch", "--timeout", "3m")
    assert told.startswith("optimizationjob.shardwise.dev/digits created\n")
    assert "digits: Succeeded (Completed)" in told
    assert re.search(r"digits: 100 % step \d+/\d+", told)

    # The very columns and cells of kubectl; ages may differ by a second.
    ours = [line.split()[:5] for line in shardwise.run("get").splitlines()]
    theirs = [line.split()[:5] for line in namespace.run("get", KIND).stdout.splitlines()]
    assert ours == theirs

    described = shardwise.run("describe", "digits")
    for words in (
        "State:        Succeeded · Completed",
        "digits-0",
        "weightsSha256",
        "Conditions:",
    ):
        assert words in described
    assert shardwise.run("explain", "digits").startswith("digits is Succeeded: Completed\n")

    same = shardwise.submit(job("digits", workers=2, epochs=6))
    assert same == "optimizationjob.shardwise.dev/digits unchanged\n"
    assert "cannot be changed once the job is there (epochs 6 → 7)" in shardwise.submit(
        job("digits", workers=2, epochs=7), code=2
    )
    assert "has ended (Succeeded)" in shardwise.run("suspend", "digits", code=2)
    assert shardwise.run("delete", "digits") == "digits: deleted\n"
    namespace.gone(("pods",), "shardwise.dev/job-name=digits")
    assert "no job digits in namespace" in shardwise.run("describe", "digits", code=4)


def test_logs_of_all_ranks(namespace: Kubectl, shardwise: Shardwise) -> None:
    shardwise.submit(job("chatty", workers=2, epochs=4))
    followed = shardwise.run("logs", "chatty", "-f")
    wait_ended(namespace, "chatty")
    merged = shardwise.run("logs", "chatty", "--timestamps").splitlines()
    assert {line.split()[0] for line in merged} == {"[0]", "[1]"}
    times = [line.split()[1] for line in merged]
    assert times == sorted(times)
    alone = shardwise.run("logs", "chatty", "--rank", "1")
    assert {line.split()[0] for line in alone.splitlines()} == {"[1]"}
    # Followed from the start to the end: nothing lost, nothing twice.
    whole = shardwise.run("logs", "chatty")
    assert sorted(followed.splitlines()) == sorted(whole.splitlines())


def test_a_job_that_cannot_start_is_explained(namespace: Kubectl, shardwise: Shardwise) -> None:
    shardwise.submit(job("nowhere", image="registry.invalid/none:1"))
    found = wait_job(
        namespace,
        "nowhere",
        "the operator tells of the image",
        lambda found: found.get("status", {}).get("reason") == "ImagePullFailed",
    )
    explained = shardwise.run("explain", "nowhere")
    assert f"nowhere is {found['status']['state']}: ImagePullFailed" in explained
    assert "check spec.trainer.image" in explained
    assert "kubectl describe pod nowhere-" in explained
    assert "ImagePullFailed" in shardwise.run("watch", "nowhere", "--timeout", "2s", code=3)


def test_what_is_wrong_is_told_before_anything_is_sent(
    namespace: Kubectl, shardwise: Shardwise
) -> None:
    wrong = job("wrong", batchSize=0)
    assert "spec.trainer.batchSize" in shardwise.submit(wrong, code=2)
    assert namespace.get(KIND, "wrong") is None
    dry = shardwise.submit(job("right"), "--dry-run", "server")
    assert "created (dry run on the server)" in dry
    assert namespace.get(KIND, "right") is None


def test_scale_suspend_and_resume_reach_the_spec(namespace: Kubectl, shardwise: Shardwise) -> None:
    shardwise.submit(job("long", workers=1, epochs=100_000))
    assert "is not between" in shardwise.run("scale", "long", "5", code=2)
    assert shardwise.run("scale", "long", "2") == "long: 1 → 2 workers\n"
    assert shardwise.run("suspend", "long") == "long: suspended\n"
    found = namespace.get(KIND, "long")
    assert found is not None
    assert found["spec"]["workers"]["replicas"] == 2
    assert found["spec"]["suspend"] is True
    assert shardwise.run("resume", "long") == "long: resumed\n"
    shardwise.run("delete", "long")


def test_doctor_finds_the_installation_in_order(shardwise: Shardwise) -> None:
    checks = json.loads(shardwise.run("doctor", "-o", "json"))
    levels = {check["name"]: check["level"] for check in checks}
    for name in ("crd", "rights", "operator", "jobs"):
        assert levels[name] == "ok", checks
    assert levels["images"] in ("ok", "warn")


def test_kubectl_finds_the_plug_in(namespace: Kubectl, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-shardwise"
    plugin.write_text(f"#!{sys.executable}\nfrom shardwise.cli.main import main\nmain()\n")
    plugin.chmod(0o755)
    namespace.apply(job("digits"))
    environment = {
        **os.environ,
        "KUBECONFIG": str(namespace.kubeconfig),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }

    def kubectl(*arguments: str) -> str:
        return subprocess.run(
            [str(tool("kubectl")), "shardwise", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=True,
        ).stdout

    listed = kubectl("get", "-n", namespace.namespace, "-o", "name")
    assert listed == "optimizationjob.shardwise.dev/digits\n"
    assert kubectl("get", "--help").startswith("Usage: kubectl shardwise get ")
