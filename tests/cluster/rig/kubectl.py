"""What the cluster tests do with a cluster: call `kubectl` and `helm`, and wait for what must come.

Every call has a time limit, and every failure says what was called and what it printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tools import tool

T = TypeVar("T")
CALL_SECONDS = 60.0
POLL_SECONDS = 0.25


class CallError(AssertionError):
    """A command that was to succeed did not."""


def wait_until(
    what: str, probe: Callable[[], T | None], *, seconds: float, poll: float = POLL_SECONDS
) -> T:
    """The first truthy answer of `probe`; fails with its last answer when the time is over."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}; last seen: {answer!r}")
        time.sleep(poll)


@dataclass(frozen=True, slots=True)
class Kubectl:
    """`kubectl` and `helm` against one cluster, in one namespace."""

    kubeconfig: Path
    namespace: str = "default"

    def within(self, namespace: str) -> Kubectl:
        return Kubectl(self.kubeconfig, namespace)

    def command(self, *arguments: str, program: str = "kubectl") -> list[str]:
        return [str(tool(program)), "--namespace", self.namespace, *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def run(
        self,
        *arguments: str,
        input: str | None = None,
        check: bool = True,
        seconds: float = CALL_SECONDS,
        program: str = "kubectl",
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, program=program)
        done = subprocess.run(
            command,
            input=input,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.environment(),
            check=False,
        )
        if check and done.returncode:
            raise CallError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done

    def helm(self, *arguments: str, seconds: float = 300) -> str:
        return self.run(*arguments, program="helm", seconds=seconds).stdout

    def apply(self, manifest: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("apply", "-f", "-", input=json.dumps(manifest), check=check)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object, or None where there is none."""
        done = self.run("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        arguments = [
            "get",
            kind,
            "--output=json",
            *([f"--selector={selector}"] if selector else []),
        ]
        items: list[dict[str, Any]] = json.loads(self.run(*arguments).stdout)["items"]
        return items

    def pods(self, job: str) -> list[dict[str, Any]]:
        return self.list("pods", f"shardwise.dev/job-name={job}")

    def wait_for(
        self,
        what: str,
        kind: str,
        name: str,
        accept: Callable[[dict[str, Any]], Any],
        seconds: float = 120,
    ) -> dict[str, Any]:
        """The object once `accept` holds for it; else fails with what the object's status was."""
        last: dict[str, Any] | None = None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            last = self.get(kind, name)
            if last is not None and accept(last):
                return last
            time.sleep(POLL_SECONDS)
        status = json.dumps((last or {}).get("status"), indent=1)
        raise AssertionError(f"not within {seconds:.0f} s: {what}; {kind} {name} has {status}")

    def gone(self, kinds: Iterable[str], selector: str, seconds: float = 60) -> None:
        """Waits until no object of these kinds has the labels."""
        for kind in kinds:
            wait_until(
                f"no {kind} with {selector}",
                lambda kind=kind: not self.list(kind, selector),  # type: ignore[misc]
                seconds=seconds,
            )
