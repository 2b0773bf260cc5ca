"""The installed chart with other values for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubectl import Kubectl

CHART = Path(__file__).resolve().parents[2] / "charts" / "shardwise"
NAME = "shardwise"
TIMEOUT = "--timeout=180s"
PLAIN_METRICS = ("metrics.tls=false", "metrics.authentication=false")
"""The tests read /metrics through the API server, which passes no token on; who is let in by the
default values is what tests/observability and the operator's unit tests try."""


@contextmanager
def upgraded(release: Kubectl, *settings: str) -> Iterator[None]:
    """`helm upgrade` with these settings beside those it has; afterwards `helm rollback`."""
    revision = json.loads(release.helm("history", NAME, "--output=json"))[-1]["revision"]
    release.helm(
        *("upgrade", NAME, str(CHART), "--reuse-values", "--wait", TIMEOUT),
        *(flag for setting in settings for flag in ("--set", setting)),
    )
    try:
        yield
    finally:
        release.helm("rollback", NAME, str(revision), "--wait", TIMEOUT)
