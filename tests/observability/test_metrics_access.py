"""A real Prometheus, by the chart's own ServiceMonitor, against an operator that asks who it is."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from monitors import scrape_config, targets
from server import Prometheus, until
from test_chart_monitoring import of_kind, render

from shardwise_operator.access import Access
from shardwise_operator.certificate import make_certificate
from shardwise_operator.metrics import Metrics, serving
from shardwise_operator.sites import Site

COORDINATOR = "shardwise-coordinator.system.svc"


class Reviews:
    """Of the cluster's accounts one may read the metrics."""

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        del audience
        known = token in ("prometheus", "somebody")
        return {"authenticated": known, "user": {"username": token}}

    async def review_access(self, user: Any, path: str) -> dict[str, Any]:
        return {"allowed": (user["username"], path) == ("prometheus", "/metrics")}


@contextmanager
def operator(authority: Path) -> Iterator[int]:
    """The port of an operator's metrics, in a thread of its own."""
    certificate = make_certificate([COORDINATOR], datetime.now(UTC))
    authority.write_text(certificate.certificate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="operator")
    thread.start()

    async def start() -> Site:
        access = Access(Reviews(), time.monotonic).status
        site = Site(serving.application(Metrics().exposition, access, time.monotonic))
        await site.start(0, certificate.server_context(), host="127.0.0.1")
        return site

    site = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield site.port
    finally:
        asyncio.run_coroutine_threadsafe(site.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


@pytest.mark.parametrize(
    ("token", "error"), [("prometheus", ""), ("somebody", "403"), ("stranger", "401")]
)
def test_it_is_told_the_metrics_if_it_may_read_them(tmp_path: Path, token: str, error: str) -> None:
    (monitor,) = of_kind(render("serviceMonitor.enabled=true"), "ServiceMonitor")
    tokens, authority, file = (tmp_path / name for name in ("token", "ca.pem", "targets.json"))
    tokens.write_text(token)
    with operator(authority) as port:
        labels = monitor["spec"]["selector"]["matchLabels"]
        meta = {"namespace": "system", "name": "metrics", "labels": labels}
        subset = {
            "addresses": [{"ip": "127.0.0.1"}],
            "ports": [{"name": "metrics", "port": port}],
        }
        seen = [
            {"kind": "Service", "metadata": meta},
            {"kind": "Endpoints", "metadata": meta, "subsets": [subset]},
        ]
        file.write_text(json.dumps(targets(seen)))
        config = scrape_config(monitor, file, interval="1s", token=tokens, authority=authority)
        with Prometheus(tmp_path, [config], "1s") as prometheus:
            (target,) = until("a scrape", lambda: scraped(prometheus), 60)
            assert target["health"] == ("down" if error else "up")
            assert error in target["lastError"]
            assert bool(prometheus.query("shardwise_build_info")) == (not error)


def scraped(prometheus: Prometheus) -> list[Any]:
    return [target for target in prometheus.targets() if target["health"] != "unknown"]
