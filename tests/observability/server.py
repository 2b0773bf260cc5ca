"""A real Prometheus: configured, started, and ended."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from client import ANSWER_SECONDS, Client
from debian import program

START_SECONDS = 60.0
POLL_SECONDS = 0.2
T = TypeVar("T")


def until(what: str, condition: Callable[[], T], seconds: float) -> T:
    """The condition's first true value.

    Raises:
        TimeoutError: it was false all the time; says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


def target(address: str, job: str, **labels: str) -> dict[str, Any]:
    """A scrape configuration as the chart's monitors make it."""
    return {
        "job_name": f"{job}-{address}",
        "honor_labels": True,
        "static_configs": [{"targets": [address], "labels": labels}],
    }


class Prometheus(Client):
    """One server with its data in a folder.

    Args:
        targets: scrape configurations; `target` makes them.
        interval: between two scrapes, for example "500ms".
        rules: rule files.
    """

    def __init__(
        self,
        folder: Path,
        targets: Sequence[Mapping[str, Any]],
        interval: str,
        rules: Sequence[Path] = (),
    ) -> None:
        self._config = folder / "prometheus.yaml"
        self._interval, self._rules = interval, rules
        self.scrape(targets, reload=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}")
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                str(program("prometheus")),
                f"--config.file={self._config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--web.enable-lifecycle",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Prometheus:
        until("Prometheus is ready", self._ready, START_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(START_SECONDS)
        self._log.close()

    def scrape(self, targets: Sequence[Mapping[str, Any]], *, reload: bool = True) -> None:
        """From now on, scrape these."""
        self._config.write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": self._interval,
                        "scrape_timeout": self._interval,
                        "evaluation_interval": "1s",
                    },
                    "rule_files": [str(path) for path in self._rules],
                    "scrape_configs": list(targets),
                }
            )
        )
        if reload:
            request = urllib.request.Request(f"{self.url}/-/reload", method="POST")
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):
                pass

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Prometheus has ended; see {self._log.name}")
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
