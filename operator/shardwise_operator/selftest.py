"""`helm test`: a real job of two workers must reach Succeeded. Run in a pod of the chart's own.

Prints what becomes of the job, deletes it however it ended, and exits with 0 only if it succeeded.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from shardwise_operator import names
from shardwise_operator.kube import KubeCluster
from shardwise_operator.port import ApiError, Cluster

POLL_SECONDS = 1.0
SECONDS = 240.0
ENDS = ("Succeeded", "Failed", "Invalid")


def job(name: str) -> dict[str, Any]:
    """Handwritten digits, on two workers."""
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "trainer": {
                "entrypoint": "shardwise.examples.digits:task",
                "epochs": 2,
                "batchSize": 128,
                "shards": 4,
            },
            "workers": {"replicas": 2},
        },
    }


def told(status: Mapping[str, Any]) -> str:
    """The state, and each condition that says something."""
    lines = [
        f"  {found.get('type')}={found.get('status')} {found.get('reason')}: {found.get('message')}"
        for found in status.get("conditions") or ()
    ]
    return "\n".join([str(status.get("state") or "no state yet"), *lines])


async def check(
    cluster: Cluster,
    namespace: str,
    name: str,
    say: Callable[[str], None],
    seconds: float = SECONDS,
) -> bool:
    """Whether the job succeeds in time; it is deleted in any case.

    Raises:
        ApiError: the job cannot be created, looked at or deleted.
    """
    made = await cluster.create(names.PLURAL, namespace, job(name))
    try:
        return await _succeeds(cluster, namespace, name, say, time.monotonic() + seconds)
    finally:
        await cluster.delete(names.PLURAL, namespace, name, made["metadata"]["uid"])


async def _succeeds(
    cluster: Cluster, namespace: str, name: str, say: Callable[[str], None], end: float
) -> bool:
    last = ""
    while True:
        status = (await cluster.get(names.PLURAL, namespace, name)).get("status") or {}
        if (text := told(status)) != last:
            say(text)
            last = text
        if status.get("state") in ENDS:
            return bool(status["state"] == "Succeeded")
        if time.monotonic() >= end:
            say("it has not ended in time")
            return False
        await asyncio.sleep(POLL_SECONDS)


async def run(namespace: str, name: str) -> int:
    cluster = await KubeCluster.connect(lambda verb, code: None)
    try:
        return 0 if await check(cluster, namespace, name, print) else 1
    except ApiError as error:
        print(f"job {namespace}/{name}: {error}", file=sys.stderr)
        return 1
    finally:
        await cluster.close()


def main() -> int:
    return asyncio.run(
        run(os.environ["SHARDWISE_TEST_NAMESPACE"], os.environ["SHARDWISE_TEST_JOB"])
    )


if __name__ == "__main__":
    sys.exit(main())
