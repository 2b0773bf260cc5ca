"""What the cluster tests do with a cluster: call `kubectl` and `helm`, and wait for what must come.

Every call has a time limit, and every failure says what was called and what it printed.
"""

from __future__ import annotations

import codecs
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tools import tool

T = TypeVar("T")
CALL_SECONDS = 120.0
POLL_SECONDS = 0.5
WAIT_SECONDS = 240.0
"""For what takes seconds on a quiet machine: other work may have the cores for minutes."""


class CallError(AssertionError):
    """A command that was to succeed did not."""


def wait_until(
    what: str,
    probe: Callable[[], T | None],
    *,
    seconds: float = WAIT_SECONDS,
    poll: float = POLL_SECONDS,
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


def _documents(watch: subprocess.Popen[bytes], end: float) -> Iterator[dict[str, Any]]:
    """The JSON documents that the process writes, until it or the time ends."""
    assert watch.stdout is not None
    decoder, read, text = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")(), ""
    while select.select([watch.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
        data = os.read(watch.stdout.fileno(), 1 << 20)
        if not data:
            return
        text = (text + read.decode(data)).lstrip()
        while text:
            try:
                document, length = decoder.raw_decode(text)
            except ValueError:
                break  # The rest of it is on its way.
            yield document
            text = text[length:].lstrip()


@contextmanager
def watched(kubectl: Kubectl, template: str, *objects: str) -> Iterator[Callable[[], list[str]]]:
    """A line of this jsonpath template for every state of the objects, however short it lasts.

    Args:
        objects: as `kubectl get` takes them.
    """
    command = kubectl.command("get", *objects, "--watch", f'--output=jsonpath={template}{{"\\n"}}')
    with tempfile.NamedTemporaryFile("w+") as out:
        watch = subprocess.Popen(command, stdout=out, env=kubectl.environment())
        try:

            def seen() -> list[str]:
                assert watch.poll() is None, f"the watch has ended: {' '.join(command)}"
                return Path(out.name).read_text().splitlines()

            yield seen
        finally:
            watch.terminate()
            watch.wait(timeout=CALL_SECONDS)


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

    def version(self) -> tuple[int, int]:
        """The server's, such as (1, 37)."""
        said = json.loads(self.run("get", "--raw", "/version").stdout)
        return int(said["major"]), int(said["minor"].rstrip("+"))

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
        seconds: float = WAIT_SECONDS,
        vain: Callable[[dict[str, Any]], Any] = lambda found: False,
    ) -> dict[str, Any]:
        """The object once `accept` holds for it; else fails with what the object's status was.

        Args:
            vain: whether `accept` can never hold any more; the wait ends at once.
        """
        last: dict[str, Any] = {}
        why = f"not within {seconds:.0f} s"
        for last in self.states(kind, name, seconds):
            if accept(last):
                return last
            if vain(last):
                why = "it cannot come any more"
                break
        status = json.dumps(last.get("status"), indent=1)
        raise AssertionError(f"{why}: {what}; {kind} {name} has {status}")

    def states(self, kind: str, name: str, seconds: float) -> Iterator[dict[str, Any]]:
        """The object as it is, then each of its changes, for so long; also while there is none yet.

        None is missed, however short it lasts, and to wait for one costs nothing.
        """
        command = self.command("get", kind, name, "--watch", "--output=json", "--ignore-not-found")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment()
            ) as watch:
                try:
                    yield from _documents(watch, end)
                finally:
                    watch.kill()
            time.sleep(POLL_SECONDS)  # There is no such object yet, or the watch was ended.

    def gone(self, kinds: Iterable[str], selector: str, seconds: float = WAIT_SECONDS) -> None:
        """Waits until no object of these kinds has the labels."""
        for kind in kinds:
            wait_until(
                f"no {kind} with {selector}",
                lambda kind=kind: not self.list(kind, selector),  # type: ignore[misc]
                seconds=seconds,
            )
